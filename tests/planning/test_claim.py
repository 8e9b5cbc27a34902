"""An output is claimed by one job: only what segbatch wrote is removed, and foreign files are never in danger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segbatch.errors import OutputError, PlanError, SpecError
from segbatch.operations.compact import compact
from segbatch.operations.demo import run_demo
from segbatch.operations.finish import finish
from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.operations.nightly.reports import dates, remove_night, write_night
from segbatch.operations.verify import verify
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.owned import owned
from segbatch.output.run_record import OutputTaken
from segbatch.output.sums import ReceiptSums
from segbatch.planning.claim import publish
from segbatch.planning.inline import execute
from segbatch.planning.plan import make_plan
from segbatch.storage.store import Store
from tests import here
from tests.kills import Steps

CHUNK = "a-tar.0efa6aa00efa6aa0.9efaa6009efaa600-00000.parquet"
# What people keep beside results, or had there before: hand-made labels, notes, tables of their own.
LAID = {
    "masks/preview.png": b"mine",
    "masks/part-0.parquet": b"mine",
    "masks/train/a.png": b"mine",
    "stats/notes.csv": b"mine",
    "retired/keep.txt": b"mine",
    "retired/2026-11-20/why.md": b"mine",
    "incoming/todo.tar": b"mine",
    "set-aside/part-1.parquet": b"mine",
    ".tmp/editor.swp": b"mine",
    "shards.parquet": b"mine",
    "switch.json": b'{"on": true}',
    "README.md": b"Labeled by hand for two years.\n",
    "notes.txt": b"mine",
}


def lay(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def test_overwrite_removes_what_segbatch_wrote_and_nothing_else(output: Path, small_corpus: Path) -> None:
    lay(output, LAID)
    leftovers = [
        f"{f}/{CHUNK}" for f in ("masks", "incoming", "retired", "retired/2026-11-20", "set-aside", "previews")
    ]
    leftovers += [f"masks/merged-2-{'0' * 16}.parquet", f".tmp/{'0' * 32}"]
    lay(output, dict.fromkeys(leftovers, b"old"))
    here.run(here.spec([str(small_corpus)], output, prune=0.01, overwrite=True))
    found = content(output)
    assert {name: found.get(name) for name in LAID} == LAID
    assert not set(leftovers) & set(found)
    assert len([name for name in found if name.startswith("masks/a-tar")]) == 3
    assert [p for p in verify(str(output)).problems if "not a name that segbatch gives" not in p] == []


def test_what_overwrite_would_remove_is_listed(output: Path) -> None:
    lay(output, LAID)
    before = content(output)
    text = "\n".join(Output.at(str(output)).describe_clear())
    assert "2 of the run itself: run.json, _SUCCESS" in text
    assert "6 result files: masks/a-tar" in text
    assert "stats/classes.parquet" in text
    assert not any(name in text for name in LAID)
    assert content(output) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("masks/a.png", "masks/a.png"),
        ("masks/train/a.png", "masks/train"),
        ("masks/part-0.parquet", "masks/part-0.parquet"),
        ("stats/classes.parquet", "stats/classes.parquet"),
        ("_SUCCESS", "_SUCCESS"),
        ("run.json", "run.json"),
    ],
)
def test_foreign_files_under_names_of_an_output_refuse_the_folder(
    name: str, said: str, overwrite: bool, small_corpus: Path, tmp_path: Path
) -> None:
    lay(tmp_path, {name: b'{"run": 7}'})
    with pytest.raises(PlanError, match=rf"{said}.* another --output") as refused:
        here.run(here.spec([str(small_corpus)], tmp_path, overwrite=overwrite))
    assert "--overwrite" not in str(refused.value)
    assert content(tmp_path) == {name: b'{"run": 7}'}


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_elsewhere_hinder_nobody_and_stay(overwrite: bool, small_corpus: Path, tmp_path: Path) -> None:
    laid = {n: c for n, c in LAID.items() if not n.startswith("masks/")} | {"masks/.DS_Store": b"mine"}
    lay(tmp_path, laid)
    assert here.run(here.spec([str(small_corpus)], tmp_path, overwrite=overwrite)).chunks == 6
    found = content(tmp_path)
    assert {name: found.get(name) for name in laid} == laid


def test_result_files_whose_job_is_unknown_are_replaced_only_on_demand(output: Path, small_corpus: Path) -> None:
    (output / "run.json").unlink()
    with pytest.raises(
        PlanError, match=r"the job that wrote them is unknown.*--overwrite to delete these result files"
    ):
        here.run(here.spec([str(small_corpus)], output))
    assert here.run(here.spec([str(small_corpus)], output, overwrite=True)).computed == 6
    assert verify(str(output)).problems == []


def test_a_run_record_of_somebody_else_is_told_by_its_fingerprint(output: Path, small_corpus: Path) -> None:
    record = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps(record | {"fingerprint": "0" * 16}))
    with pytest.raises(PlanError, match=r"run\.json: not a run record of segbatch"):
        here.run(here.spec([str(small_corpus)], output, overwrite=True))


def test_old_nights_are_forgotten_but_for_what_people_laid_there(tmp_path: Path) -> None:
    state = Store(str(tmp_path))
    for date in ("2026-11-20", "2026-11-21"):
        write_night(state, NightReport(date=date, started="", datasets={"street": DatasetReport(output="out")}))
        lay(tmp_path, {f"retired/{date}/{CHUNK}": b"old"})
    lay(tmp_path, {"nights/2026-11-20/notes.txt": b"mine", "retired/2026-11-20/why.md": b"mine"})
    for date in ("2026-11-20", "2026-11-21"):
        remove_night(state, date)
    Output.at(str(tmp_path)).delete_retired(before="2026-11-21")
    assert dates(state) == ["2026-11-20"]
    assert content(tmp_path) == {
        "nights/2026-11-20/notes.txt": b"mine",
        "retired/2026-11-20/why.md": b"mine",
        f"retired/2026-11-21/{CHUNK}": b"old",
    }
    assert list(owned(state)) == ["retired result files"]


@pytest.mark.parametrize("name", ["photographs/cat.png", "contact-sheet.png", "report.html", "masks/run.json"])
def test_the_demonstration_replaces_nothing_of_somebody_else(name: str, output: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    lay(folder, {name: (output / "run.json").read_bytes()})
    before = content(folder)
    with pytest.raises(SpecError, match="choose another -o"):
        run_demo(folder)
    assert content(folder) == before


class Race:
    """Two jobs on one output: the first begins, the second takes the output over with --overwrite."""

    def __init__(self, corpus: Path, output: Path, **second: object) -> None:
        self.output = output
        self.first = make_plan(here.spec([str(corpus)], output, chunk_size=2))
        fields = {"chunk_size": 2, "prune": 0.01, "overwrite": True, **second}
        self.second = here.spec([str(corpus)], output, **fields)
        self.first = publish(self.first)

    def names(self) -> set[str]:
        return {p.name for p in (self.output / "masks").iterdir()}

    def owners(self) -> set[str]:
        store = Store(str(self.output))
        return {receipt.fingerprint for receipt in Ledger.read(store).receipts(store)}


OTHERS = [{}, {"chunk_size": 3}, {"prune": 1e-3, "chunk_size": 3}]


@pytest.mark.parametrize("second", OTHERS)
def test_the_job_whose_output_is_taken_over_commits_nothing_more(
    second: dict[str, object], small_corpus: Path, tmp_path: Path
) -> None:
    race = Race(small_corpus, tmp_path, **second)
    work = iter(execute(race.first))
    for _ in range(3):
        next(work)
    outcome = here.run(race.second)
    assert outcome.computed == outcome.chunks
    before = content(tmp_path)
    with pytest.raises(OutputTaken, match=rf"{tmp_path}: another job has taken this output over \(fingerprint"):
        next(work)
    with pytest.raises(OutputTaken):
        finish(race.first, ReceiptSums(3), 0.0)
    assert content(tmp_path) == before
    assert verify(str(tmp_path)).problems == []


@pytest.mark.parametrize("second", OTHERS)
@pytest.mark.parametrize("winner_is_done", [False, True])
def test_a_file_that_is_written_as_the_output_is_taken_over_goes_unless_the_other_job_wrote_it(
    second: dict[str, object],
    winner_is_done: bool,
    small_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other job takes the output between the first check of a commit and its second."""
    race = Race(small_corpus, tmp_path, **second)
    work = iter(execute(race.first))
    next(work)
    write = Store.write

    def write_late(store: Store, name: str, data: bytes) -> None:
        if not name.startswith("masks/"):
            write(store, name, data)
            return
        monkeypatch.undo()
        if winner_is_done:
            write(store, name, data)
            here.run(race.second)
        else:
            publish(make_plan(race.second))
            write(store, name, data)

    monkeypatch.setattr(Store, "write", write_late)
    with pytest.raises(OutputTaken):
        next(work)
    if not winner_is_done:
        assert race.names() == set()
        here.run(race.second)
    assert len(race.owners()) == 1
    assert verify(str(tmp_path)).problems == []


def test_the_same_command_twice_at_once_is_harmless(small_corpus: Path, tmp_path: Path) -> None:
    spec = here.spec([str(small_corpus)], tmp_path, chunk_size=2)
    first = publish(make_plan(spec))
    work = iter(execute(first))
    next(work)
    assert here.run(spec).computed == 8
    receipt_sums = ReceiptSums(3)
    for receipt in work:
        receipt_sums.add(receipt)
    assert finish(first, receipt_sums, 0.0).chunks == 9
    assert verify(str(tmp_path)).problems == []


def test_a_removed_output_is_not_written_again_by_a_job_that_still_runs(small_corpus: Path, tmp_path: Path) -> None:
    race = Race(small_corpus, tmp_path / "out")
    work = iter(execute(race.first))
    next(work)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputTaken, match=r"run\.json: is gone"):
        next(work)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", range(4))
def test_a_compaction_never_adds_to_an_output_that_was_taken_over(
    step: int, whole: Path, small_corpus: Path, tmp_path: Path
) -> None:
    """What it removes in the very moment of the takeover, the other job's command computes again."""
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    other = {"prune": 0.01}
    takeover = here.spec([str(small_corpus)], output, overwrite=True, **other)
    with Steps(step, lambda steps: here.run(takeover)), pytest.raises(OutputError):
        compact(str(output), target_bytes=10**9)
    assert here.run(here.spec([str(small_corpus)], output, **other)).chunks == 6
    assert verify(str(output)).problems == []
