"""The short chaos: jobs over several nodes while one of each kind is killed, and one request of eight fails."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.chaos.chaos import difference, rage
from tests.chaos.world import KINDS, world


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_one_kill_of_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with world(tmp_path, seed=20261125, shards=4, records=60, nodes=2, actors=2, stall=4.0) as here:
        over = lambda history: set(history.kills) == set(KINDS)  # noqa: E731
        history = rage(here, 20261125, (0.2, 0.8), over, lambda _: None, brief=True)
    with capsys.disabled():
        print("\n" + history.table())
    assert set(history.kills) == set(KINDS)
    assert history.failed >= 0.1


def test_the_judge_finds_every_difference() -> None:
    expected = pa.table({"image_id": ["a", "b", "c"], "mask": [b"1", b"2", b"3"]})
    assert difference(expected, expected) is None
    other = expected.set_column(1, "mask", pa.array([b"1", b"2", b"X"]))
    assert difference(other, expected) == "other values in mask"
    assert difference(expected.take([0, 2]), expected) == "1 records are lost, the first is b"
    assert difference(expected.take([0, 1, 2, 2]), expected) == "1 records are there twice, the first is c"
    assert difference(expected, expected.slice(1)) == "1 records are of no input, the first is a"
    assert "other columns" in str(difference(expected.select(["image_id"]), expected))
