"""The log of a night: with log_format json, every line is an event, also those outside the work on a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segbatch.config.nightly import NightlySpec
from segbatch.errors import Busy
from segbatch.operations.nightly.night import run_night
from segbatch.storage.lease import Lease
from segbatch.storage.store import Store
from tests.operations.nightly.nights import HOUR, MIDNIGHT


def clock() -> float:
    return MIDNIGHT + HOUR


@pytest.fixture
def spec(tmp_path: Path) -> NightlySpec:
    """A dataset for which nothing was delivered."""
    (tmp_path / "in" / "2026-11-01").mkdir(parents=True)
    street = {"inputs": f"{tmp_path}/in/{{date}}", "output": f"{tmp_path}/out/{{date}}"}
    job = {"log_format": "json"}
    return NightlySpec.create(state=str(tmp_path / "state"), job=job, datasets={"street": street})


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_night_is_written_as_events(spec: NightlySpec, capsys: pytest.CaptureFixture[str]) -> None:
    expired = {"expires": clock() - 1, "owner": "me@old"}
    Store(spec.state).write("lease/00000001.json", json.dumps(expired).encode())
    run_night(spec, clock=clock)
    first, *_, last = events(capsys)
    assert (first["level"], "the lease of me@old has expired" in first["event"]) == ("warning", True)
    assert (last["event"], last["level"]) == ("night finished", "info")
    assert (last["night"], last["exit_code"], last["datasets"]) == ("2026-11-20", 4, {"street": 4})
    assert first["run"] == last["run"]


def test_a_night_that_does_nothing_says_why(spec: NightlySpec, capsys: pytest.CaptureFixture[str]) -> None:
    with Lease.take(Store(spec.state), 300, clock, "a night").kept(), pytest.raises(Busy):
        run_night(spec, clock=clock)
    (failed,) = events(capsys)
    assert (failed["event"], failed["level"], failed["exit_code"]) == ("night failed", "error", 5)
    assert "another run holds the lease" in failed["message"]


def test_the_format_is_that_of_all_datasets() -> None:
    one, other = {"inputs": "a", "output": "b"}, {"inputs": "c", "output": "d", "log_format": "json"}
    assert NightlySpec.create(state="s", datasets={"a": one, "b": other}).log_format == "text"
    assert NightlySpec.create(state="s", datasets={"b": other}).log_format == "json"
