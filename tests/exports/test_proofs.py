"""Exports, read back by the tools themselves: the same masks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segbatch.exports import EXPORTS
from tests.exports import read_back
from tests.exports.shapes import HOSTILE, VOID, context, masks, write

_PACKAGES = {"label-studio": "label_studio_sdk", "yolo-semantic": "ultralytics", "yolo-seg": "ultralytics"}


def read(to: str, folder: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """The masks of an export by name, as its tool reads them in a process of its own."""
    package = _PACKAGES.get(to, "datumaro")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `make test-long` installs it")
    environment = {**os.environ, "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", read_back.__file__, to, str(folder), str(tmp_path / "masks.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "masks.npz") as arrays:
        return {name.removeprefix("images/"): arrays[name] for name in arrays.files}


@pytest.mark.long
@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize("to", list(read_back.READERS))
def test_the_tool_reads_the_same_masks(tmp_path: Path, to: str, background: int | None) -> None:
    names = HOSTILE if background == 0 else ("sky", *HOSTILE[1:])
    # Ultralytics has no ignored pixels in polygons.
    expected = masks(len(names), void=to != "yolo-seg")
    write(EXPORTS[to], tmp_path / "export", expected, context(names, background=background, total=len(expected)))
    found = read(to, tmp_path / "export", tmp_path)
    assert found.keys() == expected.keys()
    shift = 0 if background == 0 else 1
    for name, mask in expected.items():
        if to == "yolo-semantic":
            assert np.array_equal(found[name], mask)
        else:  # no label is 0, and so are ignored pixels
            assert np.array_equal(found[name], np.where(mask == VOID, 0, mask + shift))
