"""Files beside the user that hide a module: named before they break anything, and harmless where nobody looks there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def version(folder: Path, *python: str, **environment: str) -> tuple[int, str]:
    code = "import sys; sys.argv = ['segbatch', '--version']; from segbatch.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, *(python or ("-P", "-c", code))], cwd=folder, capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["numpy.py", "torch/__init__.py", "random.py"])
def test_a_file_that_hides_a_module_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise RuntimeError('not the module that is meant')")
    code, said = version(tmp_path, "-m", "segbatch", "--version")
    assert code == 2
    path = tmp_path.resolve() / name.partition("/")[0]
    assert said.startswith(f"error: {path} hides the module {path.stem}, which")
    assert said.count("\n") == 1


def test_a_working_directory_on_the_path_is_examined(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").touch()
    assert version(tmp_path, PYTHONPATH=str(tmp_path))[0] == 2  # as `ray job submit --working-dir` sets it
    assert version(tmp_path)[0] == 0  # nothing is imported from there


def test_other_files_are_of_no_concern(tmp_path: Path) -> None:
    for name in ("test.py", "setup.py", "my_network.py", "numpy.txt"):
        (tmp_path / name).touch()
    (tmp_path / "torch").mkdir()  # without __init__.py, the installed package comes first
    code, said = version(tmp_path, "-m", "segbatch", "--version")
    assert code == 0, said
