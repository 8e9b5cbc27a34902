"""One image as a picture: in a file, in a terminal, and what is said without its source."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.operations.show import Shown, show
from segbatch.output.layout import SAMPLE
from segbatch.records import ClassCount
from segbatch.report.contact_sheet import Row, contact_sheet
from tests import here
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder, write_tar


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of a folder of images and a tar, with an image that is none."""
    folder = tmp_path_factory.mktemp("show")
    write_folder(folder / "in" / "b", [*photographs(3), ("page.jpg", b"<html>\x1b[2Jgone</html>")])
    write_tar(folder / "in" / "a.tar", photographs(2))
    here.run(here.spec([str(folder / "in" / "b"), str(folder / "in" / "a.tar")], folder / "out", refiner="densecrf"))
    return folder / "out"


def _panel(shown: Shown, number: int) -> np.ndarray:
    """Return a panel of the strip."""
    strip = shown.strip()
    assert strip is not None
    assert shown.panels is not None
    width = shown.panels.image.shape[1]
    return np.asarray(strip)[:, number * (width + 12) :][:, :width]


def test_the_picture_has_the_image_the_mask_of_the_network_and_the_refined_one(
    output: Path, command: Command, tmp_path: Path
) -> None:
    shown = show(str(output), "b/0001-cat.jpg")
    assert (shown.columns, shown.problem) == (("image", "network", "after densecrf"), "")
    small = Image.fromarray(_panel(shown, 0)).resize((160, 107))
    with Image.open(output.parent / "in" / "b" / "0001-cat.jpg") as original:
        assert np.abs(np.asarray(small, int) - np.asarray(original.resize(small.size), int)).mean() < 12
    assert not np.array_equal(_panel(shown, 1), _panel(shown, 2))
    code, out, err = command("show", output, "b/0001-cat.jpg", "--to", tmp_path / "cat.png")
    assert (code, "look at" in out, "note" in err) == (0, True, False)
    assert all(name in out for name in ("dark", "middle", "bright", "refiner densecrf"))
    with Image.open(tmp_path / "cat.png") as picture:
        assert picture.width > 3 * 480
    code, _, _ = command("show", output, "b/0001-cat.jpg", "--to", tmp_path / "cat.png")
    assert code == 0, "its own pictures are replaced"
    (tmp_path / "own.png").write_bytes(b"mine")
    code, _, err = command("show", output, "b/0001-cat.jpg", "--to", tmp_path / "own.png")
    assert (code, "choose another --to" in err) == (2, True)
    code, _, err = command("show", output, "b/0001-cat.jpg", "--to", tmp_path)
    assert (code, "Is a directory" in err) == (2, True)
    code, _, err = command("show", output, "b/0001-cat.jpg", "--to", tmp_path / "absent" / "cat.png")
    assert (code, "cannot be written: No such file or directory" in err) == (2, True)


def test_without_a_terminal_a_file_is_written_and_named(
    output: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("show", output, "b/0002-coffee.jpg")
    assert (code, out.splitlines()[-1]) == (0, "look at 0002-coffee-shown.png")
    assert (tmp_path / "0002-coffee-shown.png").exists()
    code, out, _ = command("show", output, "b/0001-cat.jpg", "--json")
    plain = json.loads(out)
    assert (code, plain["picture"], plain["width"]) == (0, None, 160)
    assert sum(entry["pixels"] for entry in plain["classes"]) == plain["width"] * plain["height"]


def test_an_id_is_found_by_its_end_and_others_are_suggested(output: Path, tmp_path: Path) -> None:
    data, twice = photographs(1, side=20)[0][1], tmp_path / "out"
    here.run(here.spec([str(write_folder(tmp_path / "in", [("x/0.jpg", data), ("y/0.jpg", data)]))], twice))
    assert show(str(output), "0001-cat.jpg").row.image_id == "b/0001-cat.jpg"
    assert show(str(output), "0001-cat").row.image_id == "a.tar/0001-cat"
    with pytest.raises(SpecError, match=r"0001-cap.jpg: no image of .* did you mean 'b/0001-cat.jpg'\?"):
        show(str(output), "0001-cap.jpg")
    with pytest.raises(SpecError, match=r"2 images of .* end with /0.jpg: x/0.jpg, y/0.jpg; give the whole id"):
        show(str(twice), "0.jpg")
    with pytest.raises(SpecError, match="ids are such as"):
        show(str(output), "zebra")


def test_an_error_row_is_printed_and_has_no_picture(output: Path, command: Command, tmp_path: Path) -> None:
    code, out, _ = command("show", output, "page.jpg")
    assert code == 0
    assert "error row: decode/UnknownFormat" in out
    assert "\x1b" not in out
    code, _, err = command("show", output, "page.jpg", "--to", tmp_path / "page.png")
    assert (code, "there is no picture to write" in err) == (2, True)


def test_without_its_source_the_preview_is_shown_and_without_that_the_mask_alone(output: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(output, tmp_path / "out")
    moved = shutil.copytree(output.parent / "in", tmp_path / "in")
    (output.parent / "in").rename(output.parent / "away")
    try:
        shown = show(str(copy), "b/0001-cat.jpg")
        assert shown.columns == ("image", "network", "after densecrf")
        assert shown.problem.endswith("shown is the preview of the run")
        (copy / SAMPLE).unlink()
        shown = show(str(copy), "b/0001-cat.jpg")
        assert (shown.columns, "name where they are now" in shown.problem) == (("mask",), True)
        assert shown.problem.endswith("shown is the mask alone")
        labels, mask = shown.labels, shown.row.mask
        assert mask is not None
        colors = {tuple(color) for color in _panel(shown, 0).reshape(-1, 3).tolist()}
        assert colors == {labels.colors[i] for i in np.unique(mask)}
        shown = show(str(copy), "b/0001-cat.jpg", inputs=[str(moved / "b"), str(moved / "a.tar")])
        assert (shown.columns, shown.problem) == (("image", "mask"), "")
    finally:
        (output.parent / "away").rename(output.parent / "in")


@pytest.mark.parametrize(
    ("environment", "sign"),
    [
        ({"TERM_PROGRAM": "iTerm.app"}, b"\x1b]1337;File=inline=1;width=80:"),
        ({"TERM_PROGRAM": "tmux", "LC_TERMINAL": "iTerm2", "TMUX": "/tmp/t,1,0"}, "▀".encode()),
        ({}, "▀".encode()),
    ],
)
def test_a_terminal_gets_a_picture_of_the_kind_that_it_shows(
    output: Path, environment: dict[str, str], sign: bytes, tmp_path: Path
) -> None:
    leader, terminal = pty.openpty()  # states no size in pixels
    hidden = ("TMUX", "TERM_PROGRAM", "LC_TERMINAL", "NO_COLOR")
    variables = {k: v for k, v in os.environ.items() if k not in hidden}
    variables |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "80", **environment}
    arguments = [sys.executable, "-m", "segbatch", "show", str(output), "b/0001-cat.jpg"]
    with subprocess.Popen(
        arguments, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=variables, cwd=tmp_path
    ) as shell:
        os.close(terminal)
        printed = b""
        while True:
            try:
                printed += os.read(leader, 65536)
            except OSError:  # the last process has closed the terminal
                break
        assert shell.stderr is not None
        messages = shell.stderr.read()
    os.close(leader)
    assert shell.returncode == 0, messages
    assert sign in printed
    assert b"image | network | after densecrf" in printed
    assert b"Traceback" not in printed + messages
    assert not list(tmp_path.iterdir())


def test_names_that_no_font_has_are_numbers_and_many_classes_are_counted() -> None:
    labels = LabelSet.of(["road", "дорога", "\U00012000", *map(str, range(60))])
    image = np.zeros((8, 8, 3), np.uint8)
    counts = [ClassCount(i, 1, 0.0001, 0.5) for i in range(60)]
    sheet = contact_sheet([Row("a", image, (image[..., 0],))], ("image", "mask"), labels, counts=counts)
    few = contact_sheet([Row("a", image, (image[..., 0],))], ("image", "mask"), labels, counts=counts[:1])
    assert few.height < sheet.height < 26 * 45
