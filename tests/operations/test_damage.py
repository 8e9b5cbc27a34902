"""A result file that is not what was committed never counts as done; one that is, is never read again."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from segbatch.operations.compact import compact
from segbatch.operations.explain import explain
from segbatch.operations.verify import verify
from segbatch.output.result_file import parse_file, read_file
from segbatch.output.writer import to_parquet
from segbatch.planning.inline import execute
from segbatch.planning.plan import make_plan
from segbatch.storage.store import Store
from tests import here

Damage = Callable[[Path], None]


def result_files(output: Path) -> list[Path]:
    return sorted((output / "masks").iterdir())


def flip(fraction: float) -> Damage:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(fraction * (len(data) - 1))] ^= 4
        path.write_bytes(data)

    return damage


def as_old_as_before(damage: Damage) -> Damage:
    """The time of modification stays, as where a disk does the damage, or a copy that keeps it."""

    def quiet(path: Path) -> None:
        before = path.stat()
        damage(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return quiet


def other_parquet(path: Path) -> None:
    """The same rows in other pages: a good file, and not the one that was committed."""
    ((receipt, rows),) = read_file(Store(str(path.parent.parent)), path.name)
    path.write_bytes(to_parquet(rows, receipt.footer(), row_group_size=1))


def text(old: bytes, new: bytes) -> Damage:
    """Other characters in the footer, of which Parquet has no checksum."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return damage


DAMAGE: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros of the same size": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "an error page": lambda path: path.write_bytes(b"<html>502</html>"),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "another chunk's": lambda path: shutil.copy2(result_files(path.parent.parent)[1], path),
    **{f"a bit at {at:.0%}": flip(at) for at in (0.0, 0.1, 0.35, 0.6, 0.85, 1.0)},
    "its records": text(b'"records": 4', b'"records": 5'),
    "its classes": text(b'"num_classes": 3', b'"num_classes": 9'),
    "its writer": text(b"parquet-cpp-arrow", b"parquet-cpp-brrow"),
    "its digest's name": text(b"segbatch.digest", b"segbatch.digesu"),
    **{f"a bit at {at:.0%}, as old as before": as_old_as_before(flip(at)) for at in (0.2, 0.5)},
}
# A good file that only the digest in stats/files.parquet shows to be another one.
UNSEEN: dict[str, Damage] = {"other pages": other_parquet}


def forget(output: Path) -> None:
    """As if the run had been killed before it was finished."""
    for name in ("_SUCCESS", "stats/files.parquet"):
        (output / name).unlink()
    record = output / "run.json"
    record.write_text(record.read_text().replace('"state": "done"', '"state": "running"'))


def check_mended(output: Path, corpus: Path, whole: Path, damage: Damage, caplog: pytest.LogCaptureFixture) -> None:
    path = result_files(output)[0]
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert here.run(here.spec([str(corpus)], output)).computed == 1
    (told,) = [r.getMessage() for r in caplog.records if path.name in r.getMessage()]
    assert told.endswith(f"; moved to set-aside/{path.name}")
    assert (output / "set-aside" / path.name).read_bytes() == damaged
    assert {p.name: p.read_bytes() for p in result_files(output)} == {
        p.name: p.read_bytes() for p in result_files(whole)
    }
    assert verify(str(output)).problems == []


@pytest.fixture
def output(whole: Path, small_corpus: Path, tmp_path: Path) -> Path:
    """A copy whose files are recorded as they lie there."""
    copied = Path(shutil.copytree(whole, tmp_path / "out"))
    here.run(here.spec([str(small_corpus)], copied))
    return copied


@pytest.mark.parametrize("name", [*DAMAGE, *UNSEEN])
def test_a_damaged_file_of_a_finished_output_is_computed_again(
    name: str, output: Path, small_corpus: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_mended(output, small_corpus, whole, {**DAMAGE, **UNSEEN}[name], caplog)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_of_a_killed_run_is_computed_again(
    name: str, output: Path, small_corpus: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forget(output)
    check_mended(output, small_corpus, whole, DAMAGE[name], caplog)


@pytest.mark.parametrize("name", [*DAMAGE, *UNSEEN])
def test_verify_finds_it_too(name: str, output: Path) -> None:
    path = result_files(output)[0]
    {**DAMAGE, **UNSEEN}[name](path)
    assert any(path.name in problem for problem in verify(str(output)).problems)


def test_a_dry_run_names_what_is_damaged_and_changes_nothing(output: Path, small_corpus: Path) -> None:
    path = result_files(output)[0]
    path.write_bytes(b"")
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    text = explain(here.spec([str(small_corpus)], output)).to_text()
    assert "5 chunks" in text
    assert f"damaged      masks/{path.name}: " in text
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == before


class Reads:
    """Names below masks/ that are read, of whole files or of footers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        for how in ("read", "open"):
            monkeypatch.setattr(Store, how, self._noted(getattr(Store, how)))

    def _noted(self, read: Callable[[Store, str], object]) -> Callable[[Store, str], object]:
        def noted(store: Store, name: str) -> object:
            if name.startswith("masks/"):
                self.names.append(name)
            return read(store, name)

        return noted


def test_a_resume_reads_no_file_that_is_as_it_was(
    output: Path, small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Path(shutil.copytree(small_corpus, tmp_path / "in"))
    grown = tmp_path / "grown"
    here.run(here.spec([str(corpus)], grown))
    shutil.copy2(corpus / "b.tar", corpus / "d.tar")
    reads = Reads(monkeypatch)
    assert here.run(here.spec([str(small_corpus)], output)).computed == 0
    outcome = here.run(here.spec([str(corpus)], grown))
    assert (outcome.computed, outcome.chunks, outcome.totals.records) == (2, 8, 20)
    (corpus / "d.tar").unlink()
    outcome = here.run(here.spec([str(corpus)], grown))
    assert (outcome.retired, outcome.totals.records) == (2, 15)
    assert reads.names == []


def test_a_copied_output_is_read_once_and_then_known(
    whole: Path, small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(whole, tmp_path / "out"))
    reads = Reads(monkeypatch)
    for expected in (6, 0):
        reads.names.clear()
        assert here.run(here.spec([str(small_corpus)], copied)).computed == 0
        assert len(reads.names) == expected


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"mine"])
def test_a_table_that_is_gone_or_damaged_is_written_again(
    content: bytes | None, output: Path, small_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = output / "stats/files.parquet"
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    result_files(output)[0].write_bytes(b"")
    reads = Reads(monkeypatch)
    for computed, expected in ((1, 6), (0, 0)):
        reads.names.clear()
        assert here.run(here.spec([str(small_corpus)], output)).computed == computed
        assert len(reads.names) == expected
    assert verify(str(output)).problems == []


def test_after_a_compaction_no_file_is_read_and_damage_is_found(
    output: Path, small_corpus: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact(str(output), target_bytes=10**9)
    with monkeypatch.context() as patch:
        reads = Reads(patch)
        assert here.run(here.spec([str(small_corpus)], output)).computed == 0
        assert reads.names == []
    flip(0.4)(result_files(output)[0])
    assert here.run(here.spec([str(small_corpus)], output)).computed == 6
    assert verify(str(output)).problems == []


def test_a_compaction_refuses_damaged_files_by_name(output: Path) -> None:
    path = result_files(output)[0]
    other_parquet(path)
    with pytest.raises(Exception, match=rf"{path.name}: its bytes are not those that were committed"):
        compact(str(output), target_bytes=10**9)


def test_a_file_that_another_job_left_in_the_last_moment_is_not_counted(
    output: Path, small_corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its worker was lost between its write and the check after it."""
    late = {p.name: p.read_bytes() for p in result_files(output)}

    def work(plan: object) -> object:
        yield from execute(plan)
        (output / "masks" / name).write_bytes(late[name])

    name = min(late)
    other = here.spec([str(small_corpus)], output, prune=0.01, overwrite=True)
    with pytest.raises(Exception, match="not everything is committed"):
        here.run(other, work)
    assert "written by another job" in caplog.text
    again = here.spec([str(small_corpus)], output, prune=0.01)
    assert here.run(again).computed == 1
    assert verify(str(output)).problems == []


def test_what_is_set_aside_twice_is_there_twice(output: Path, small_corpus: Path) -> None:
    path = result_files(output)[0]
    for content in (b"one", b"two"):
        path.write_bytes(content)
        here.run(here.spec([str(small_corpus)], output))
    aside = output / "set-aside"
    assert [(aside / name).read_bytes() for name in (path.name, f"1-{path.name}")] == [b"one", b"two"]


def test_a_chunk_that_is_computed_again_has_the_same_bytes(small_corpus: Path, whole: Path, tmp_path: Path) -> None:
    here.run(here.spec([str(small_corpus)], tmp_path))
    assert {p.name: p.read_bytes() for p in result_files(tmp_path)} == {
        p.name: p.read_bytes() for p in result_files(whole)
    }


def test_the_plan_of_an_output_that_is_done_holds_every_file(output: Path, small_corpus: Path) -> None:
    plan = make_plan(here.spec([str(small_corpus)], output))
    assert sorted(plan.output.files.files.names()) == [p.name for p in result_files(output)]
    assert plan.output.files.is_saved
    assert plan.output.files.files.rows.schema.field("footer").type == pa.large_binary()


def test_any_flipped_bit_of_a_file_is_found(whole: Path) -> None:
    data = result_files(whole)[0].read_bytes()
    assert len(parse_file(data)) == 1
    for at in [*range(0, len(data), 41), *range(len(data) - 3000, len(data), 7)]:
        with pytest.raises(ValueError, match=r".+"):
            parse_file(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
