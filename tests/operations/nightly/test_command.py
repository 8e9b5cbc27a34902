"""``segbatch nightly`` as a person and a timer meet it: plans, exit codes, two at once, one that is killed."""

from __future__ import annotations

import datetime
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segbatch.cli import app as cli
from segbatch.config.nightly import NightlySpec
from segbatch.operations.nightly.night import run_night
from segbatch.operations.verify import verify
from segbatch.storage.lease import Lease, holder
from segbatch.storage.store import Store
from tests.cluster.jobs import committed, rows, start, wait_for
from tests.operations.nightly.nights import JOB, shard

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Three shards of two chunks, 0.4 s each."""
    for number in range(3):
        shard(tmp_path / "in", number, images=20)
    job = JOB | {"model": "tests.networks:slow"}
    street = {"inputs": [f"{tmp_path}/in/*.tar"], "output": str(tmp_path / "out")}
    path = tmp_path / "nightly.yaml"
    path.write_text(yaml.safe_dump({"state": str(tmp_path / "state"), "job": job, "datasets": {"street": street}}))
    return path


@pytest.fixture
def nightly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command in this process; (exit code, all it printed)."""
    monkeypatch.setattr(cli.console, "width", 200)

    def call(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["segbatch", "nightly", *args])
        code = 0
        try:
            cli.run_command()
        except SystemExit as e:
            code = int(e.code or 0)
        captured = capsys.readouterr()
        return code, re.sub(r"\x1b\[[0-9;]*m", "", captured.out + captured.err)

    return call


def test_a_plan_is_printed_and_nothing_written(nightly: Run, config: Path) -> None:
    code, text = nightly(str(config), "--dry-run")
    assert code == 0
    assert re.search(r"^night +\d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert re.search(r"^lease +free$", text, re.MULTILINE)
    assert re.search(r"^street +3 of 3 shards to compute: 3 new, 0 changed; 0 gone; output .*/out$", text, re.MULTILINE)
    assert sorted(p.name for p in config.parent.glob("*")) == ["in", "nightly.yaml"]


def test_a_second_night_leaves_and_says_who_runs(nightly: Run, config: Path) -> None:
    state = Store(str(config.parent / "state"))
    with Lease.take(state, 300, time.time, "the night of 2026-11-25").kept():
        code, text = nightly(str(config))
        assert code == 5
        assert re.search(
            r"another run holds the lease: .*\(process \d+\), the night of 2026-11-25; .* This run does nothing", text
        )
        assert "lease        " in nightly(str(config), "--dry-run")[1]
        assert "the night of 2026-11-25" in nightly(str(config), "--dry-run")[1]
    assert not (config.parent / "out").exists()


@pytest.mark.usefixtures("local_ray")
def test_a_night_that_is_killed_is_resumed_at_once(nightly: Run, config: Path) -> None:
    """Without waiting for its lease, and without losing a finished chunk."""
    incoming, out, log = config.parent / "out" / "incoming", config.parent / "out", config.parent / "log"
    process = start("nightly", str(config), log=log)
    try:
        wait_for(lambda: len(list(incoming.glob("*.parquet"))) >= 2)
        code, text = nightly(str(config))
        assert (code, f"(process {process.pid})" in text) == (5, True), text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = {f.name: f.stat().st_mtime_ns for f in incoming.glob("*.parquet")}
    assert 2 <= len(kept) < 6, log.read_text()
    assert not (out / "_SUCCESS").exists()

    state = Store(str(config.parent / "state"))
    wait_for(lambda: holder(state, time.time) is None, 5)  # the process ends some moments after the signal
    later = run_night(NightlySpec.load(config))
    assert later is not None
    assert (later.verdict, later.datasets["street"].computed) == ("ok", 60 - 10 * len(kept))
    assert kept == {n: (out / "masks" / n).stat().st_mtime_ns for n in kept}, "a finished chunk was done again"
    assert len(committed(out)) == 6
    found = rows(out)
    assert len({r["image_id"] for r in found}) == len(found) == 60
    assert verify(str(out)).ok


def test_by_day_nothing_is_done(nightly: Run, config: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    ago, soon = ((now + datetime.timedelta(hours=h)).strftime("%H:%M") for h in (-1, 1))
    config.write_text(f'{config.read_text()}\nuntil: "{ago}"\nsince: "{soon}"\n')
    code, text = nightly(str(config))
    assert (code, f"it is not night: a night is from {soon} to {ago} UTC" in text) == (0, True)
    assert "not now: it is not night" in nightly(str(config), "--dry-run")[1]
    assert not (config.parent / "state").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--date", "tomorrow"], "--date: 'tomorrow' is not a date; write it as 2026-11-25"),
        (["--date", "2020-01-01"], "street cannot be backfilled by date"),
        (["--dataset", "stret"], "--dataset: there is no 'stret'; there are street"),
        (["--until", "late"], 'until: got "late"'),
    ],
)
def test_wrong_usage(nightly: Run, config: Path, args: list[str], says: str) -> None:
    code, text = nightly(str(config), *args)
    assert (code, says in text) == (2, True), text
    code, text = nightly(str(config.parent / "absent.yaml"))
    assert (code, "absent.yaml: no such configuration file" in text) == (2, True)
