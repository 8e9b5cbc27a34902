"""The time that is left, as a run of whose chunks each takes as long as it takes shows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from segbatch.output.receipt import Receipt
from segbatch.output.totals import Totals
from segbatch.planning import progress
from segbatch.planning.plan import make_plan
from segbatch.planning.progress import ProgressCounter
from tests import here
from tests.corpus import photographs, write_folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def receipt(seconds: float) -> Receipt:
    totals: Any = Totals(2)
    totals.records = 8
    return Receipt("unplanned", "", totals, 0, {"segment": seconds})


def test_the_time_left_is_that_of_warm_workers(clock: list[float], tmp_path: Path) -> None:
    write_folder(tmp_path / "in", photographs(40, side=8))
    plan = make_plan(here.spec([str(tmp_path / "in")], tmp_path / "out", chunk_size=1))
    counter = ProgressCounter(plan, 4)
    total = counter.progress.total
    assert counter.progress.seconds_left is None
    clock[0] = 60.0  # workers start, and each computes a first chunk
    for done in range(1, 5):
        counter.add(receipt(12.0))
        shown = counter.progress
        assert (shown.is_bound, shown.records_per_second) == (True, None)
        assert shown.seconds_left == (total - done) * 12.0 / 4
    for done in range(5, 25):  # then four chunks a second
        clock[0] += 0.25
        counter.add(receipt(1.0))
        shown = counter.progress
        assert not shown.is_bound
        assert shown.records_per_second == pytest.approx(32.0)
        assert shown.seconds_left is not None
        assert math.isclose(shown.seconds_left, (total - done) / 4)
