"""``verify`` from the side of the input: what it holds and the output lacks, and the other way round."""

from __future__ import annotations

import itertools
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segbatch.errors import Outage
from segbatch.operations.repair import repair
from segbatch.operations.verify import verify
from segbatch.storage.retry import RetryPolicy
from tests import here
from tests.corpus import photographs, write_folder, write_tar

SAMPLES = photographs(9, side=24)


def unnoticed(path: Path, records: int, size: int = 64_000) -> str:
    """A tar of so many records whose size and time do not tell that it was changed."""
    write_tar(path, SAMPLES[:records])
    with open(path, "r+b") as f:
        f.truncate(size)
    os.utime(path, ns=(10**18, 10**18))
    return str(path)


@pytest.mark.parametrize(
    ("before", "after", "problems"),
    [
        (4, 8, ["chunk 0 of its input", "chunk 1 of its input", "-00000-end.parquet: its input ends before it"]),
        (8, 4, ["chunk 0 of its input", "-00000.parquet: its input ends", "-00001-end.parquet: its input ends"]),
        (6, 8, ["-00001-end.parquet: its ids are not those of its input"]),
        (9, 8, ["chunk 1 of its input", "-00001.parquet: its input ends", "-00002-end.parquet: its input ends"]),
    ],
)
def test_records_that_came_or_went_unnoticed_are_found_by_reading_the_input_and_repaired(
    tmp_path: Path, before: int, after: int, problems: list[str]
):
    output = str(tmp_path / "out")
    here.run(here.spec([unnoticed(tmp_path / "a.tar", before)], output))
    unnoticed(tmp_path / "a.tar", after)
    assert verify(output).ok
    report = verify(output, read_input=True)
    assert len(report.problems) == len(problems)
    assert all(any(says in problem for problem in report.problems) for says in problems)
    assert f"all {after} records read" in report.against
    repair(output, report, here.run)
    report = verify(output, read_input=True)
    assert (report.problems, report.records) == ([], after)


def test_a_file_that_is_skipped_and_named_nowhere_is_found_without_reading_the_input(tmp_path: Path):
    write_folder(tmp_path / "in", [*SAMPLES[:2], ("notes.txt", b"x")])
    here.run(here.spec([str(tmp_path / "in")], tmp_path / "out"))
    report = verify(str(tmp_path / "out"), read_input=True)
    assert (report.problems, report.records, report.skipped.count) == ([], 2, 1)
    (tmp_path / "in" / "more.raw").write_bytes(b"x")
    (problem,) = verify(str(tmp_path / "out")).problems
    assert "1 skipped files of the inputs, the listing has 2" in problem
    assert "more.raw" in problem
    here.run(here.spec([str(tmp_path / "in")], tmp_path / "out"))
    assert verify(str(tmp_path / "out"), read_input=True).ok


class Failing(MemoryFileSystem):
    """A store whose objects fail by ``error`` after so many reads."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012
    reads = 10**9
    error: Exception = FileNotFoundError()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("failing://", "memory://"))

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        cls = type(self)
        cls.reads -= 1
        if cls.reads < 0:
            raise self.error
        return super().cat_file(path, *args, **kwargs)


def test_an_input_that_cannot_be_read_is_a_problem_and_the_others_are_compared(tmp_path: Path, monkeypatch: Any):
    fsspec.register_implementation("failing", Failing, clobber=True)
    write_folder(tmp_path, SAMPLES[:2])
    uris = [str(tmp_path / name) for name, _ in SAMPLES[:2]]
    for name in ("a", "b"):
        lines = "".join(json.dumps({"uri": uri}) + "\n" for uri in uris)
        Failing().pipe_file(f"/{name}.jsonl", lines.encode())
    output = str(tmp_path / "out")
    here.run(here.spec(["failing://a.jsonl", "failing://b.jsonl"], output))
    monkeypatch.setattr(Failing, "reads", 2)  # those that count the rows
    report = verify(output, read_input=True)
    assert [problem.partition(":")[0] for problem in report.problems] == ["a.jsonl", "b.jsonl"]
    assert all("cannot be compared with its input" in problem for problem in report.problems)
    monkeypatch.setattr(Failing, "reads", 3)
    report = verify(output, read_input=True)
    assert [problem.partition(":")[0] for problem in report.problems] == ["b.jsonl"]
    assert "all 2 records read" in report.against
    monkeypatch.setattr(Failing, "reads", 10)
    assert verify(output, read_input=True).ok


def test_an_outage_of_the_input_store_ends_the_comparison(tmp_path: Path, monkeypatch: Any):
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing().pipe_file("/c.tar", write_tar(tmp_path / "c.tar", SAMPLES[:2]).read_bytes())
    here.run(here.spec(["failing://c.tar"], tmp_path / "out"))
    minutes = itertools.count(0, 100).__next__
    policy = partial(RetryPolicy, first_wait_seconds=0.0, sleep=lambda seconds: None, clock=minutes)
    monkeypatch.setattr("segbatch.storage.files.RetryPolicy", policy)
    monkeypatch.setattr(Failing, "reads", 0)
    monkeypatch.setattr(Failing, "error", TimeoutError("no answer"))
    with pytest.raises(Outage):
        verify(str(tmp_path / "out"), read_input=True)
