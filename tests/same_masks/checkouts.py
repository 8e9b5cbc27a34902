"""A base checkout beside this one: its files, its native extension, and a Python that imports it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SITES = [Path(p) for p in sys.path if p.endswith("site-packages")]
_NATIVE = (".cpp", ".h", ".txt")


def export(commit: str, folder: Path) -> Path:
    """The files of a commit of this repository in ``folder``."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def copy(folder: Path) -> Path:
    """The package of this checkout as it is now in ``folder``, without its native extension."""
    shutil.copytree(ROOT / "segbatch", folder / "segbatch", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return folder


def give_native(base: Path, say: Callable[[str], None]) -> None:
    """Put the native extension into ``base``: this checkout's if the sources are equal, else one that is built."""
    if _sources(base) == _sources(ROOT):
        found = [f for place in (ROOT, *_SITES) for f in place.glob("segbatch/**/*.so")]
        if not found:
            sys.exit("this checkout has no native extension: make it with `pip install --editable .`")
        stub = next(base.glob(f"segbatch/**/{found[0].name.partition('.')[0]}.pyi"), None)
        where = stub.parent if stub else base / "segbatch" / "crf"
        shutil.copy(found[0], where)
        say(f"native extension: equal sources, so the base takes {found[0].name} of this checkout")
        return
    say("native extension: other sources, so it is built for the base")
    wheels = base / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(base)]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(base, [name for name in wheel.namelist() if name.endswith(".so")])


def _sources(root: Path) -> list[tuple[str, str]]:
    """Names and digests of the native sources, wherever they lie."""
    files = [f for f in (root / "segbatch").rglob("*") if f.suffix in _NATIVE]
    return sorted((f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files)


def python_of(base: Path) -> Path:
    """A Python with the packages of this one, which imports segbatch from ``base``, in Ray's workers too.

    Not PYTHONPATH: an editable install puts a finder before it.
    """
    folder = base / ".python"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "base.pth").write_text("".join(f"{path}\n" for path in (base, *_SITES)))
    return folder / "bin" / "python"


def run_cases(python: Path, root: Path, cases: Path, output: Path, say: Callable[[str], None]) -> None:
    """All cases by the segbatch in ``root``, in one process with one Ray; its output line by line."""
    output.mkdir(parents=True)
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    command = [str(python), str(Path(__file__).with_name("side.py")), str(root), str(cases), str(output)]
    log = output / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=output, env=clean) as side,
    ):
        assert side.stdout
        for line in side.stdout:
            say(line.rstrip())
    if side.returncode:
        sys.exit(f"the cases did not run to their end:\n{log.read_text()[-3000:]}")
