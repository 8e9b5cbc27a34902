"""Compaction: no row is lost or there twice, whenever it is killed and whatever else is at work."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import OutputError
from segbatch.operations.compact import compact
from segbatch.operations.verify import verify
from segbatch.planning.inline import execute
from segbatch.results.dataset import MaskDataset
from segbatch.storage.store import Store
from tests import here
from tests.cluster.jobs import rows as glob_rows
from tests.corpus import encode, photograph, write_folder
from tests.kills import Steps, by_id, counted, every_kill

ALL = 10**9


def files(output: Path) -> list[str]:
    return sorted(os.listdir(output / "masks"))


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def half(output: Path) -> int:
    """A target that makes about two files of those that are there."""
    return sum(f.stat().st_size for f in (output / "masks").iterdir()) // 2


def test_fewer_files_the_same_rows(copied: Path, whole: Path, small_corpus: Path) -> None:
    before = [MaskDataset.open(str(copied)).totals, list(MaskDataset.open(str(copied)).errors())]
    done = compact(str(copied), target_bytes=ALL)
    assert (done.files_before, done.files_after, done.written) == (6, 1, 1)
    assert len(files(copied)) == 1
    assert by_id(glob_rows(copied)) == counted(copied) == counted(whole)
    assert verify(str(copied)).problems == []
    (copied / "run.json").write_text((copied / "run.json").read_text().replace('"done"', '"running"'))
    assert [MaskDataset.open(str(copied)).totals, list(MaskDataset.open(str(copied)).errors())] == before
    again = here.run(here.spec([str(small_corpus)], copied))
    assert (again.computed, again.chunks) == (0, 6)
    assert by_id(glob_rows(copied)) == counted(whole)
    assert json.loads((copied / "run.json").read_text())["timings"]["chunks"] == 6


def test_row_groups_are_small_enough_to_read_one_mask(tmp_path: Path) -> None:
    images = [(f"{i:03}.png", encode(photograph(i % 6, 8), "PNG")) for i in range(300)]
    here.run(here.spec([str(write_folder(tmp_path / "in", images))], tmp_path / "out", chunk_size=100))
    assert compact(str(tmp_path / "out"), target_bytes=ALL).files_after == 1
    (merged,) = (tmp_path / "out/masks").iterdir()
    footer = pq.read_metadata(merged)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [256, 44]


def test_again_there_is_nothing_to_do(copied: Path) -> None:
    target = half(copied)
    first = compact(str(copied), target_bytes=target)
    assert 1 < first.files_after < 6
    held = {p.name: p.stat().st_mtime_ns for p in copied.rglob("*")}
    assert compact(str(copied), target_bytes=target).written == 0
    assert {p.name: p.stat().st_mtime_ns for p in copied.rglob("*")} == held


def test_killed_at_every_step(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segbatch.storage.fetch.CONCURRENT", 1)
    expected = counted(whole)
    seen = set()
    for output in every_kill(whole, tmp_path, lambda o: compact(str(o), target_bytes=half(o))):
        assert counted(output) == expected
        state = by_id(glob_rows(output)) == expected
        seen.add((state, (output / "_SUCCESS").exists()))
        report = verify(str(output))
        assert all("not finished" in p or "`segbatch compact` removes them" in p for p in report.problems), (
            report.problems
        )
        compact(str(output), target_bytes=half(whole))
        assert by_id(glob_rows(output)) == expected
        assert (output / "_SUCCESS").exists()
        assert verify(str(output)).problems == []
        assert not (output / ".tmp").exists()
    # Whoever waits for _SUCCESS never meets a row twice; in between there is something to meet.
    assert seen == {(True, True), (True, False), (False, False)}


def test_a_run_puts_right_what_a_killed_compaction_left(whole: Path, small_corpus: Path, tmp_path: Path) -> None:
    expected = counted(whole)
    for output in every_kill(whole, tmp_path, lambda o: compact(str(o), target_bytes=ALL)):
        outcome = here.run(here.spec([str(small_corpus)], output))
        assert (outcome.computed, outcome.chunks) == (0, 6)
        assert by_id(glob_rows(output)) == expected
        assert verify(str(output)).problems == []


def test_another_compaction_at_every_step(whole: Path, tmp_path: Path) -> None:
    """With another target, so that both merge the same chunks otherwise."""
    expected = counted(whole)
    refused: list[str] = []

    def other(steps: Steps) -> None:
        compact(str(output), target_bytes=ALL)

    for step in itertools.count():
        output = Path(shutil.copytree(whole, tmp_path / str(step)))
        with Steps(step, other) as steps:
            try:
                compact(str(output), target_bytes=half(output))
            except OutputError as e:
                refused.append(str(e))
        assert counted(output) == expected
        compact(str(output), target_bytes=ALL)
        assert by_id(glob_rows(output)) == expected
        assert verify(str(output)).problems == []
        if steps.count <= step:
            break
    assert refused
    assert all("is gone since the output was listed" in message for message in refused)


def test_shards_that_leave_are_taken_out_of_merged_files(small_corpus: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(small_corpus, tmp_path / "in"))
    base = tmp_path / "base"
    here.run(here.spec([str(source)], base))
    compact(str(base), target_bytes=ALL)
    (source / "a.tar").unlink()
    everything = counted(base)
    expected = [r for r in everything if not r["image_id"].startswith("a.tar/")]
    gone = [r for r in everything if r["image_id"].startswith("a.tar/")]
    again = lambda output: here.run(here.spec([str(source)], output))  # noqa: E731
    for output in every_kill(base, tmp_path, again):
        again(output)
        assert by_id(glob_rows(output)) == counted(output) == expected
        retired = [pq.read_table(p) for p in sorted((output / "retired").iterdir())]
        assert by_id(pa.concat_tables(retired).to_pylist()) == gone
        assert len(retired) == 3
        assert verify(str(output)).problems == []


def test_a_late_worker_s_file_is_not_read_and_goes(copied: Path, whole: Path) -> None:
    late = files(copied)[0]
    compact(str(copied), target_bytes=ALL)
    shutil.copy(whole / "masks" / late, copied / "masks")
    assert counted(copied) == counted(whole)
    assert verify(str(copied)).problems != []
    compact(str(copied), target_bytes=ALL)
    assert late not in files(copied)
    assert verify(str(copied)).problems == []


def test_what_is_missing_of_a_merged_output_is_computed(copied: Path, whole: Path, small_corpus: Path) -> None:
    compact(str(copied), target_bytes=half(copied))
    (copied / "masks" / files(copied)[0]).unlink()
    with pytest.raises(OutputError, match="a run is unfinished"):
        compact(str(copied), target_bytes=ALL)
    outcome = here.run(here.spec([str(small_corpus)], copied))
    assert 0 < outcome.computed < 6
    assert by_id(glob_rows(copied)) == counted(whole)
    assert compact(str(copied), target_bytes=ALL).files_after == 1
    assert by_id(glob_rows(copied)) == counted(whole)


def test_a_merged_file_of_another_job_never_takes_the_place_of_new_rows(copied: Path, small_corpus: Path) -> None:
    """A compaction that was at work while a run replaced the output."""
    compact(str(copied), target_bytes=ALL)
    (merged,) = files(copied)
    old = (copied / "masks" / merged).read_bytes()
    other = here.spec([str(small_corpus)], copied, prune=0.01, overwrite=True)

    def work(plan: Any) -> Any:
        yield from execute(plan)
        (copied / "masks" / merged).write_bytes(old)

    assert here.run(other, work).computed == 6
    assert len(files(copied)) == 6
    assert (copied / "set-aside" / merged).read_bytes() == old
    assert verify(str(copied)).problems == []


def test_a_store_that_gives_back_other_bytes_loses_nothing(
    copied: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.write

    def spoil(self: Store, name: str, data: bytes) -> None:
        at = data.index(b"IDAT") + 20
        real(self, name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    monkeypatch.setattr(Store, "write", spoil)
    with pytest.raises(OutputError, match="differs from what was written"):
        compact(str(copied), target_bytes=ALL)
    assert by_id(glob_rows(copied)) == counted(copied) == counted(whole)
    monkeypatch.undo()
    assert compact(str(copied), target_bytes=ALL).files_after == 1
    assert by_id(glob_rows(copied)) == counted(whole)
