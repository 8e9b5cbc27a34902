"""An output that cannot be written is refused before any work; the plan says so too, and writes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from segbatch.errors import OutputError, SpecError
from segbatch.operations.explain import explain
from segbatch.operations.run import run
from segbatch.planning.plan import make_plan
from segbatch.ray_backend.train import train
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_folder
from tests.disks import disk


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "in", photographs(2, side=24)))


@pytest.mark.parametrize("command", [run, explain])
@pytest.mark.parametrize("name", ["out", "deep/below/it"])
def test_an_output_below_a_file_is_refused(
    photos: str, tmp_path: Path, command: Callable[..., object], name: str
) -> None:
    (tmp_path / "notes.txt").write_text("a file")
    output = tmp_path / "notes.txt" / name
    with pytest.raises(SpecError, match=f"output {output}: cannot be written: Not a directory: .*notes.txt"):
        command(here.spec([photos], output))


@pytest.mark.parametrize("command", [run, explain])
def test_an_output_on_a_read_only_mount_is_refused(photos: str, command: Callable[..., object]) -> None:
    with disk(1024) as mount:
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        with pytest.raises(SpecError, match=f"output {mount}/out: cannot be written: {os.strerror(errno.EROFS)}"):
            command(here.spec([photos], f"{mount}/out"))
        with pytest.raises(SpecError, match=os.strerror(errno.EROFS)):
            train(inputs=[photos], labels=photos, output=f"{mount}/out")


def test_an_output_of_another_user_is_refused(photos: str, tmp_path: Path) -> None:
    """In a process without root's rights, if this one has them."""
    output = tmp_path / "out"
    (output / "masks").mkdir(parents=True)
    output.chmod(0o777)
    (output / "masks").chmod(0o555)
    code = (
        "import os, sys\nfrom segbatch.storage.store import Store\nfrom segbatch.errors import SpecError\n"
        "os.getuid() or os.setuid(65534)\n"
        "try: Store(sys.argv[1]).refuse_unwritable('masks')\nexcept SpecError as e: print(e)"
    )
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o111)
    said = subprocess.run([sys.executable, "-c", code, str(output)], capture_output=True, text=True)
    assert said.stdout.startswith(
        f"output {output}: cannot be written: Permission denied: {output}/masks; change its"
    ), said


def test_a_plan_leaves_nothing_behind(photos: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    explain(here.spec([photos], tmp_path / "new" / "out"))
    make_plan(here.spec([photos], tmp_path / "new" / "out"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    Store(str(tmp_path / "out")).try_writing()
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
    Store("memory://trial/out").try_writing()
    assert fsspec.filesystem("memory").find("/trial") == []


def test_a_bucket_that_refuses_writes_is_named_before_ray_starts(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type(fsspec.filesystem("memory"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(memory, "pipe_file", refuse)
    monkeypatch.setattr("segbatch.operations.run.cluster", None)
    with pytest.raises(OutputError, match=r"^output memory://refusing/out: cannot be written: .*access is denied"):
        run(here.spec([photos], "memory://refusing/out"))
