"""The command export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segbatch.cli.export import FORMATS
from segbatch.exports import EXPORTS
from tests import here
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    samples = [*photographs(3, side=32), ("page.jpg", b"<html>gone</html>")]
    here.run(here.spec([str(write_folder(folder / "in", samples))], folder / "out", max_error_fraction=1))
    return folder / "out"


def test_the_help_lists_each_format(command: Command) -> None:
    assert tuple(EXPORTS) == FORMATS
    text = " ".join(command("export", "--help")[1].split())
    assert all(name in text for name in FORMATS)


def test_the_last_lines_are_where_the_export_is_and_how_it_is_loaded(
    output: Path, command: Command, tmp_path: Path
) -> None:
    code, text, _ = command("export", output, "--to", "coco-rle", "-o", tmp_path / "e", "--classes", "dark,bright")
    assert code == 0
    assert text.splitlines() == [
        "not exported, and listed in errors.jsonl: 1 error row",
        f"3 images, 2 classes: {tmp_path}/e",
        f'load with: pycocotools.coco.COCO("{tmp_path}/e/annotations/instances_train.json")',
    ]
    code, text, _ = command(
        "export", output, "--to", "coco-rle", "-o", tmp_path / "e", "--classes", "dark,bright", "--json"
    )
    plain = json.loads(text)
    assert (code, plain["counts"]["images"], plain["classes"]) == (0, 3, ["dark", "bright"])


def test_classes_are_merged_by_pairs_and_files_and_images_chosen_by_a_list(
    output: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "map.yaml").write_text("middle: ignore\n")
    (tmp_path / "ids.txt").write_text("0000-astronaut.jpg\n")
    images = ("--image-ids", tmp_path / "ids.txt")
    merged = ("--class-map", "dark=shade", "--class-map", tmp_path / "map.yaml")
    code, text, log = command("export", output, "--to", "png", "-o", tmp_path / "e", *merged, *images)
    assert (code, "1 image, 2 classes" in text) == (0, True), log
    assert (tmp_path / "e/classes.csv").read_text().splitlines()[1].startswith("0,shade,")
    (tmp_path / "ids.txt").write_text("\n")
    code, _, log = command("export", output, "--to", "png", "-o", tmp_path / "f", *images)
    assert (code, "names no image; give one image id per line" in log) == (2, True)


def test_what_is_missing_is_asked_for(output: Path, command: Command) -> None:
    code, _, log = command("export", output)
    assert (code, "give --to FORMAT (png, coco-rle" in log) == (2, True)


def test_an_unfinished_output_is_exported_and_said_to_be(output: Path, command: Command, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"state": "running"}))
    code, text, _ = command("export", copy, "--to", "png", "-o", tmp_path / "e")
    assert (code, text.splitlines()[0]) == (0, "the run is not finished: this is what is committed so far")
