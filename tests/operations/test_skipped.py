"""What shards hold besides records, and shards that fail as a whole: told by run, run.json, `verify` and `stats`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from segbatch.cli import app as cli
from segbatch.cli import tables as show
from segbatch.config.nightly import NightlySpec
from segbatch.errors import SourceError
from segbatch.operations.compact import compact
from segbatch.operations.finish import RunResult
from segbatch.operations.nightly.judge import judge
from segbatch.operations.nightly.record import ERRORS, DatasetReport
from segbatch.operations.verify import verify
from segbatch.planning.plan import make_plan
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_tar

PHOTOGRAPHS = [data for _, data in photographs(6, side=32)]
BARE = "members without a suffix"


def tar(path: Path, names: list[str]) -> Path:
    return write_tar(path, [(name, PHOTOGRAPHS[i % 6]) for i, name in enumerate(names)])


def dotted(folder: Path) -> Path:
    """Four tars, of which the last collapses: a look into the first ones does not find it."""
    for name in ("a", "b", "c"):
        tar(folder / f"{name}.tar", [f"{name}{i}.jpg" for i in range(5)])
    tar(folder / "d.tar", [f"DSC_{i}.jpg" for i in range(3)] + [f"2019.07.{i:02}.jpg" for i in range(12)])
    return folder


def said(outcome: RunResult) -> str:
    console = Console(file=io.StringIO(), width=400)
    show.run_result(console, outcome)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_skipped_members_are_told_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = [f"IMG_{i:02}" for i in range(25)]
    tar(tmp_path / "in/a.tar", [f"{i:02}.jpg" for i in range(30)] + bare[:20])
    tar(tmp_path / "in/b.tar.zst", ["x.jpg", "\x1b[31mred", ".h.jpg", "y.jpg", "z.jpg", *bare[20:21]])
    output = tmp_path / "out"
    outcome = here.run(here.spec([str(tmp_path / "in")], output))
    assert (outcome.exit_code, outcome.totals.records, outcome.skipped.count) == (0, 33, 23)
    assert f"skipped: 22 {BARE}: a.tar/IMG_00, a.tar/IMG_01" in said(outcome)
    recorded = json.loads((output / "run.json").read_text())["skipped"]
    assert recorded["members"][BARE]["count"] == 22
    assert recorded["files"] == {}
    again = here.run(here.spec([str(tmp_path / "in")], output))
    assert (again.computed, again.skipped) == (0, outcome.skipped)

    monkeypatch.setattr(sys, "argv", ["segbatch", "verify", str(output)])
    with pytest.raises(SystemExit) as end:
        cli.run_command()
    text = capsys.readouterr().out
    assert end.value.code == 0, text
    assert f"skipped: 22 {BARE}" in text
    assert "1 members whose names begin with a dot: b.tar.zst/.h.jpg" in text
    monkeypatch.setattr(sys, "argv", ["segbatch", "stats", str(output), "--json"])
    with pytest.raises(SystemExit):
        cli.run_command()
    assert json.loads(capsys.readouterr().out)["skipped"] == outcome.skipped.to_json()


def test_compaction_keeps_what_was_skipped_and_verify_compares_it_with_run_json(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [*(f"{i}.jpg" for i in range(9)), "bare", "._a.jpg"])
    output = tmp_path / "out"
    here.run(here.spec([str(tmp_path / "a.tar")], output))
    compact(str(output), target_bytes=10**8)
    report = verify(str(output))
    assert (report.problems, report.skipped.count) == ([], 2)
    for level, reason in (("members", BARE), ("members", None)):
        record = json.loads((output / "run.json").read_text())
        if reason is None:
            record["skipped"][level] = {}
        else:
            record["skipped"][level][reason]["count"] += 1
        (output / "run.json").write_text(json.dumps(record))
        (problem,) = verify(str(output)).problems
        assert "skipped members of shards" in problem


def test_a_shard_that_collapses_fails_the_job(tmp_path: Path) -> None:
    output = tmp_path / "out"
    spec = here.spec([str(dotted(tmp_path / "in"))], output, max_error_fraction=1)
    for computed in (True, False):
        outcome = here.run(spec)
        assert outcome.exit_code == 3
        assert bool(outcome.computed) == computed
        assert "a shard failed: d.tar: 12 of the 15 images have no key of their own" in said(outcome)
        assert not (output / "_SUCCESS").exists()
        (problem,) = verify(str(output)).problems
        assert problem.startswith("a shard failed: d.tar: 12 of the 15 images")
    compact(str(output), target_bytes=10**8)
    assert not (output / "_SUCCESS").exists()
    assert here.run(spec).exit_code == 3
    outcome = here.run(here.spec([str(tmp_path / "in")], tmp_path / "right", key="last-dot"))
    assert (outcome.exit_code, outcome.totals.records, outcome.totals.failed) == (0, 30, 0)
    assert verify(str(tmp_path / "right")).ok


def test_a_shard_that_is_mended_no_longer_fails_the_job(tmp_path: Path) -> None:
    output = tmp_path / "out"
    spec = here.spec([str(dotted(tmp_path / "in"))], output)
    assert here.run(spec).exit_code == 3
    tar(tmp_path / "in/d.tar", [f"DSC_{i}.jpg" for i in range(15)])
    outcome = here.run(spec)
    assert (outcome.exit_code, outcome.totals.records) == (0, 30)
    assert (output / "_SUCCESS").exists()
    assert verify(str(output)).ok


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2"])
def test_a_key_rule_that_the_first_shards_contradict_is_found_before_work(tmp_path: Path, suffix: str) -> None:
    tar(tmp_path / f"in/a{suffix}", [f"v1.5_{i:02}.jpg" for i in range(40)])
    spec = here.spec([str(tmp_path / "in")], tmp_path / "out")
    with pytest.raises(SourceError, match=rf"a{suffix}: .*40 of the 40 images .* --key last-dot") as caught:
        make_plan(spec)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    assert here.run(spec.model_copy(update={"key": "last-dot"})).totals.records == 40


def test_another_key_rule_is_another_job(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", ["a.b.jpg", "c.jpg"])
    spec = here.spec([str(tmp_path / "a.tar")], tmp_path / "out")
    here.run(spec)
    with pytest.raises(Exception, match=r'read\.key "first-dot" there, "last-dot" requested'):
        here.run(spec.model_copy(update={"key": "last-dot"}))


def test_a_night_with_a_failed_shard_is_an_alert() -> None:
    nights = NightlySpec.create(state="memory://state", datasets={"a": {"inputs": "x.tar", "output": "memory://out"}})
    entry = DatasetReport(output=Store("memory://out").uri, current={"records": 1000, "errors": 1, "failed_shards": 1})
    judge(entry, "a", [], nights, nights.hours(0.0).date)
    assert entry.exit_code == ERRORS
    assert "1 shard failed as a whole" in entry.alerts[0]
