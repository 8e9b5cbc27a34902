"""A disk that is full, of the output or of temporary files: said so, with the path, and no error rows for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from segbatch.causes import is_of_the_machine
from segbatch.errors import OutputError, SegbatchError
from segbatch.isolation.failures import carried
from segbatch.output.receipt import Receipt
from segbatch.planning.inline import execute
from segbatch.planning.plan import Plan
from segbatch.planning.pools import Hardware
from segbatch.ray_backend import local
from tests import here
from tests.cluster.jobs import rows
from tests.corpus import photographs, write_folder
from tests.disks import disk, grow

FULL = os.strerror(errno.ENOSPC)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_folder(tmp_path_factory.mktemp("in"), photographs(40, side=64)))


def carrying(plan: Plan) -> Iterable[Receipt]:
    """What workers do with an exception."""
    with carried("a.tar-00000.parquet at segment"):
        yield from execute(plan)


def test_a_full_output_is_named_and_the_same_job_goes_on_when_there_is_space(corpus: str) -> None:
    with disk(64) as output:
        spec = here.spec([corpus], output)
        with pytest.raises(OutputError, match=rf"{output}/.*: cannot be written .*{FULL}\); free space there") as e:
            here.run(spec)
        assert e.value.exit_code == 1
        before = len(rows(output))
        assert before < 40
        grow(output, 16 * 2**10)
        outcome = here.run(spec)
        assert (outcome.exit_code, outcome.totals.records, len(rows(output))) == (0, 40, 40)


def test_a_full_disk_of_temporary_files_stops_the_job_and_makes_no_error_rows(corpus: str, tmp_path: Path) -> None:
    with disk(256) as scratch:
        (tmp_path / "weights").write_text(str(scratch))
        how = {"model": "tests.networks:scratch", "weights": str(tmp_path / "weights")}
        spec = here.spec([corpus], tmp_path / "out", **how)
        with pytest.raises(SegbatchError, match=rf"at segment: OSError: .*{FULL}.*TMPDIR.*; free space there") as e:
            here.run(spec, carrying)
        assert e.value.exit_code == 1
        assert [r["image_id"] for r in rows(tmp_path / "out") if r["error"]] == []
        assert len(rows(tmp_path / "out")) < 40
        grow(scratch, 16 * 2**10)
        assert here.run(spec, carrying).exit_code == 0
        assert len(rows(tmp_path / "out")) == 40


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_ray_is_not_started_on_a_full_disk(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(64) as folder:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv(variable, str(folder))
        monkeypatch.setattr("tempfile.tempdir", None)  # it is found again, where there is room for a few bytes
        with pytest.raises(SegbatchError, match=rf"{FULL}: {folder} has .* free.*RAY_TMPDIR") as e:
            local.start(Hardware(1, 0, 1, 0))
        assert e.value.exit_code == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE])
def test_what_every_record_would_meet_is_no_error_row(number: int) -> None:
    assert is_of_the_machine(OSError(number, os.strerror(number)))
    assert is_of_the_machine(RuntimeError(f"writing failed: {os.strerror(number)}"))


@pytest.mark.parametrize(
    "error", [MemoryError(), FileNotFoundError(2, "x"), ValueError("disk"), PermissionError(13, "x")]
)
def test_what_one_record_may_meet_alone_is_one(error: Any) -> None:
    assert not is_of_the_machine(error)
