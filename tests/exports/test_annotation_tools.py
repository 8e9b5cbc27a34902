"""Exports for annotation and training tools: names, colors, files, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml

from segbatch.errors import SpecError
from segbatch.exports import EXPORTS
from segbatch.exports.cvat_masks import label_map
from segbatch.exports.format import ExportedImage
from segbatch.exports.label_studio import image_url
from segbatch.labels import LabelSet
from segbatch.operations.export import export
from tests import here
from tests.corpus import photographs, write_folder
from tests.exports.conftest import rows_of
from tests.exports.shapes import HOSTILE, VOID, context, masks, write
from tests.test_packages import run

FOREGROUND = [name.replace("\ufffe", "\ufffd") for name in HOSTILE[1:]]


def test_label_studio_names_labels_and_predictions_alike(tmp_path: Path) -> None:
    write(EXPORTS["label-studio"], tmp_path, masks(len(HOSTILE), 2), context(total=2))
    config = ElementTree.parse(tmp_path / "config.xml").getroot()
    assert [label.attrib["value"] for label in config.iter("Label")] == FOREGROUND
    (tasks,) = (json.loads(path.read_bytes()) for path in tmp_path.glob("tasks-*.json"))
    assert [task["data"]["image_id"] for task in tasks] == ["dots.0.jpg", "sub/dots.1.jpg"]
    assert [task["predictions"][0]["score"] for task in tasks] == [0.75, 0.75]
    for result in tasks[0]["predictions"][0]["result"]:
        assert result["value"]["brushlabels"][0] in FOREGROUND
        brush = config.find(f"BrushLabels[@name='{result['from_name']}'][@toName='{result['to_name']}']")
        assert brush is not None
        assert config.find(f"Image[@name='{result['to_name']}']") is not None


def test_label_studio_has_files_of_500_tasks(tmp_path: Path) -> None:
    one = {f"{i:04d}": np.ones((2, 2), np.uint8) for i in range(1001)}
    write(EXPORTS["label-studio"], tmp_path, one, context(total=len(one)))
    parts = [json.loads(path.read_bytes()) for path in sorted(tmp_path.glob("tasks-*.json"))]
    assert [len(part) for part in parts] == [500, 500, 1]


@pytest.mark.parametrize(
    ("root", "url"),
    [
        ("", "/data/local-files/?d=images/a%20b%26c.jpg"),
        ("https://host/photos", "https://host/photos/images/a%20b%26c.jpg"),
        ("s3://bucket/photos/", "s3://bucket/photos/images/a b&c.jpg"),
    ],
)
def test_label_studio_finds_photographs_below_a_prefix(root: str, url: str) -> None:
    image = ExportedImage(1, "a", "a", np.zeros((1, 1), np.uint8), (), None, b"", "images/a b&c.jpg")
    assert image_url(image, replace(context(), image_root=root)) == url


def test_only_formats_with_urls_take_a_root_of_images(output: Path, tmp_path: Path) -> None:
    options = {"output": str(output), "target": str(tmp_path / "e"), "image_root": "https://host/", "images": "none"}
    with pytest.raises(SpecError, match="--image-root: cvat has no URLs of images; formats that do: label-studio"):
        export(to="cvat", **options)  # type: ignore[arg-type]
    export(to="label-studio", **options)  # type: ignore[arg-type]
    tasks = json.loads((tmp_path / "e/tasks-00000.json").read_bytes())
    assert {task["data"]["image"] for task in tasks} == {f"https://host/{quote(name)}" for name in rows_of(output)}


def test_cvat_escapes_labels_and_matches_frames_by_name(tmp_path: Path) -> None:
    write(EXPORTS["cvat"], tmp_path, masks(len(HOSTILE), 2), context(total=2))
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == FOREGROUND
    assert [image.attrib["name"] for image in root.iter("image")] == ["dots.0.jpg", "sub/dots.1.jpg"]
    assert {mask.attrib["label"] for mask in root.iter("mask")} == set(FOREGROUND)
    assert [label["name"] for label in json.loads((tmp_path / "labels.json").read_bytes())] == FOREGROUND


def test_colors_of_cvat_masks_differ_and_only_the_background_is_black() -> None:
    gray, red = (7, 7, 7), (128, 0, 0)
    given = replace(context(), labels=LabelSet.of(["a", "b", "c", "d"], [(0, 0, 0), gray, gray, red]), background=None)
    labels = label_map(given)
    assert labels.names == ("background", "a", "b", "c", "d")
    assert (labels.colors[0], labels.colors[2], labels.colors[4]) == ((0, 0, 0), gray, red)
    assert len(set(labels.colors)) == 5


def test_cvat_masks_are_in_the_colors_of_the_label_map(tmp_path: Path) -> None:
    expected = masks(len(HOSTILE), 2, void=True)
    write(EXPORTS["cvat-masks"], tmp_path, expected, context(total=2))
    lines = (tmp_path / "labelmap.txt").read_text().splitlines()[1:]
    colors = np.array([[int(v) for v in line.split(":")[1].split(",")] for line in lines])
    assert (tmp_path / "ImageSets/Segmentation/default.txt").read_text().split() == list(expected)
    for name, mask in expected.items():
        image = cv2.imread(str(tmp_path / f"SegmentationClass/{name}.png"))
        assert np.array_equal(image[:, :, ::-1], colors[np.where(mask == VOID, 0, mask)])


@pytest.mark.parametrize("name", ["a:b", "#a", "background"])
def test_cvat_masks_refuse_names_that_the_label_map_cannot_hold(name: str) -> None:
    given = context(["sky", name], background=None)
    with pytest.raises(SpecError, match="cannot hold the class name"):
        EXPORTS["cvat-masks"].check(given)
    EXPORTS["cvat"].check(given)


@pytest.mark.parametrize("background", [0, None])
def test_fiftyone_has_gray_masks_whose_zero_is_no_class(tmp_path: Path, background: int | None) -> None:
    expected = masks(len(HOSTILE), 2, void=True)
    write(EXPORTS["fiftyone"], tmp_path, expected, context(total=2, background=background))
    pairs = [
        {p.relative_to(tmp_path / d).with_suffix("") for p in (tmp_path / d).rglob("*.*g")} for d in ("data", "labels")
    ]
    assert pairs[0] == pairs[1]
    readme = (tmp_path / "README.md").read_text()
    for name, mask in expected.items():
        shifted = mask if background == 0 else np.where(mask == VOID, 0, mask + 1)
        assert np.array_equal(cv2.imread(str(tmp_path / f"labels/{name}.png"), cv2.IMREAD_UNCHANGED), shifted)
    targets = eval(readme.partition("mask_targets = ")[2].splitlines()[0])
    assert targets == {i + (background is None): name for i, name in enumerate(HOSTILE) if i != background}


def test_yolo_masks_are_gray_and_beside_their_images(tmp_path: Path) -> None:
    expected = masks(len(HOSTILE), 2, void=True)
    write(EXPORTS["yolo-semantic"], tmp_path, expected, context(total=2))
    data = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert data == {
        "train": "images/train",
        "val": "images/train",
        "masks_dir": "masks",
        "names": dict(enumerate(HOSTILE)),
    }
    for name, mask in expected.items():
        assert (tmp_path / f"images/train/{name}.jpg").exists()
        found = cv2.imread(str(tmp_path / f"masks/train/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found, mask)
    with pytest.raises(SpecError, match="'road' is the only class, and Ultralytics takes value 0"):
        EXPORTS["yolo-semantic"].check(context(["road"], background=None))


@pytest.mark.parametrize(
    ("to", "folder", "suffix"), [("yolo-semantic", "masks", ".png"), ("yolo-seg", "labels", ".txt")]
)
def test_yolo_finds_masks_of_inputs_that_were_laid_out_for_it(
    tmp_path: Path, to: str, folder: str, suffix: str
) -> None:
    samples = photographs(2, side=24)
    for part in ("train/images", "train/masks"):
        write_folder(tmp_path / "in" / part, samples)
    here.run(here.spec([str(tmp_path / "in")], tmp_path / "out"))
    export(str(tmp_path / "out"), to=to, target=str(tmp_path / "e"))
    files = [str(path) for path in (tmp_path / "e").rglob("*.jpg")]
    assert len(files) == 4
    # The rule of Ultralytics: the last folder of this name.
    found = {f"/{folder}/".join(file.rsplit("/images/", 1)).rsplit(".", 1)[0] + suffix for file in files}
    assert found == {str(path) for path in (tmp_path / "e" / folder).rglob(f"*{suffix}")}
    assert len(found) == 4


def test_yolo_polygons_without_opencv_say_what_to_install(output: Path, tmp_path: Path) -> None:
    done = run("cv2", "export", str(output), "--to", "yolo-seg", "-o", str(tmp_path / "e"))
    assert done.returncode == 2
    expected = "error: --to yolo-seg needs cv2, which is not installed; pip install 'segbatch[export]'"
    assert done.stderr.splitlines()[-1] == expected
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("background", [0, None])
def test_yolo_polygons_are_filled_to_the_same_masks(tmp_path: Path, background: int | None) -> None:
    expected = masks(len(HOSTILE), 4)
    write(EXPORTS["yolo-seg"], tmp_path, expected, context(total=4, background=background))
    data = yaml.safe_load((tmp_path / "data.yaml").read_text())
    first = 1 if background == 0 else 0
    assert data["names"] == dict(enumerate(HOSTILE[first:]))
    for name, mask in expected.items():
        found, boxes = np.zeros(mask.shape, np.uint8), set()
        for line in (tmp_path / f"labels/train/{name}.txt").read_text().splitlines():
            class_id, *numbers = line.split()
            assert len(numbers) >= 6
            # Ultralytics multiplies in single precision and truncates.
            points = np.array(numbers, np.float32).reshape(-1, 2) * np.float32(mask.shape[::-1])
            box = (class_id, *points.min(0).tolist(), *points.max(0).tolist())
            assert box not in boxes
            boxes.add(box)
            cv2.fillPoly(found, [points.astype(np.int32)], int(class_id) + first)
        assert np.array_equal(found, mask)
