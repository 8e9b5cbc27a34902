"""Label images: what is listed, what values they hold, and labels drawn in colors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segbatch.errors import SpecError
from segbatch.evaluation.class_map import ClassMap, UnknownValues
from segbatch.evaluation.label_images import LabelReader, color_table, list_labels
from segbatch.labels import LabelOptions, LabelSet
from segbatch.storage.files import Files

NAMES = LabelSet.of(["road", "car", "sky"])
IDS = np.array([[0, 1, 2], [2, 2, 255]], np.uint8)
COLORS = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180), "void": (0, 0, 0)}


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def drawn(ids: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    table = np.full((256, 3), 7, np.uint8)
    table[: len(colors)] = colors
    table[255] = (224, 224, 192)
    return table[ids]


def test_files_of_other_kinds_are_no_labels(tmp_path: Path) -> None:
    for name in ("b/x.png", "a.tif", "polygons.json", "README.md", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [label.name for label in list_labels(Files(), str(tmp_path))] == ["a.tif", "b/x.png"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.json").write_text("{}")
    with pytest.raises(SpecError, match=r"holds no images, only 1 file such as 'x.json'"):
        list_labels(Files(), str(tmp_path / "other"))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_values_are_what_was_written(mode: str) -> None:
    ids = IDS > 0 if mode == "1" else IDS.astype(np.uint16) * 200 if mode == "I;16" else IDS
    image = Image.fromarray(ids)
    if mode == "P":
        image.putpalette([1, 2, 3, 4, 5, 6, *bytes(762)])
    label = LabelReader(Files()).decode(encoded(image), "x.png")
    np.testing.assert_array_equal(label.values, ids)
    assert (label.palette is None) == (mode != "P")
    if label.palette is not None:
        assert label.palette[:2].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            encoded(Image.fromarray(IDS), "JPEG"),
            "x.png cannot be read: .* looks like a JPEG, which does not keep values",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "looks like a Git LFS pointer"),
        (
            encoded(Image.fromarray(drawn(IDS, [*NAMES.colors]))),
            r"not an image of class ids \(mode RGB\).* or --label-colors",
        ),
        (encoded(Image.fromarray(IDS))[:-30], "cannot be read"),
    ],
)
def test_what_holds_no_class_ids_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        LabelReader(Files()).decode(data, "x.png")


def table(tmp_path: Path, text: str) -> tuple[LabelReader, ClassMap]:
    (tmp_path / "colors.txt").write_text(text)
    options = LabelOptions(colors=str(tmp_path / "colors.txt"), mapping={"lorry": "car"} if "lorry" in text else None)
    colors = color_table(options.colors, NAMES, Files())
    assert colors is not None
    return LabelReader(Files(), colors), ClassMap.of(NAMES.names, options, colors.names)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_labels_in_colors_are_read_by_their_table(tmp_path: Path, mode: str) -> None:
    lines = "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in COLORS.items())
    reader, classes = table(tmp_path, f"name,r,g,b\n{lines}lorry,0,0,70\n")
    ids = np.array([[2, 0, 3], [1, 4, 0]])
    image = Image.fromarray(drawn(ids, [*COLORS.values(), (0, 0, 70)]))
    image = image.quantize() if mode == "P" else image.convert(mode)
    label = reader.decode(encoded(image), "x.png")
    truth, unknown = classes.truth(label.values)
    assert truth.tolist() == [[2, 0, -1], [1, 1, 0]]
    assert unknown == {}
    assert label.palette is None


def test_colors_of_the_classes_and_unknown_ones() -> None:
    colors = color_table("classes", NAMES, Files())
    image = drawn(IDS, list(NAMES.colors))
    image[0, 0] = (1, 2, 3)
    label = LabelReader(Files(), colors).decode(encoded(Image.fromarray(image)), "x.png")
    truth, unknown = ClassMap.of(NAMES.names, LabelOptions(), NAMES.names).truth(label.values)
    assert truth.tolist() == [[-1, 1, 2], [2, 2, -1]]
    values = UnknownValues()
    for value, pixels in unknown.items():
        values.add(value, pixels, "x.png")
    assert values.lines() == ["color (1, 2, 3): 1 pixel, first in x.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("road\ncar\nsky\n", "names 3 classes and no colors; give a table with the columns name,r,g,b"),
        ("road,1,2,3\ncar,1,2,3\n", r"'road' and 'car' have one color, \(1, 2, 3\)"),
        (
            "road,1,2,3\nboat,4,5,6\n",
            "label_colors: 'boat' is not a class; the classes are road, car, sky.*'boat: ignore'",
        ),
    ],
)
def test_tables_that_do_not_tell_the_classes(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        table(tmp_path, text)
    with pytest.raises(SpecError, match=r"label_colors: .*none.csv cannot be read"):
        color_table(str(tmp_path / "none.csv"), NAMES, Files())
