"""Lists of classes in the forms that people have: read by their form, or refused by name; a header is never a class."""

from __future__ import annotations

import json

import pytest

from segbatch.class_list import parse_class_list
from segbatch.errors import SpecError

NAMES = ("road", "car", "sky")
COLORS = ((128, 64, 128), (0, 0, 142), (70, 130, 180))
SHUFFLED = [{"id": 2, "name": "sky"}, {"id": 0, "name": "road"}, {"id": 1, "name": "car"}]
COLORED = [{**c, "color": COLORS[c["id"]]} for c in SHUFFLED]
HEX = ("#804080", "#00008E", "4682b4")


def rows(separator: str, *columns: str) -> str:
    table = {"name": NAMES, "id": range(3), "r": [c[0] for c in COLORS], "g": [c[1] for c in COLORS]}
    table |= {"b": [c[2] for c in COLORS]}
    return "".join(separator.join(str(table[c][i]) for c in columns) + "\n" for i in range(3))


@pytest.mark.parametrize(
    "text",
    [
        "road\ncar\nsky\n",
        "\n road \r\ncar\r\n\r\nsky",
        "# the classes of a street\nroad\ncar\nsky",
        "name\nroad\ncar\nsky",
        "Class Name:\nroad\ncar\nsky",
        "__ignore__\n_background_\nroad",
        '["road", "car", "sky"]',
        json.dumps(SHUFFLED),
        json.dumps({"classes": SHUFFLED}),
        json.dumps({"info": {}, "images": [], "categories": [{**c, "supercategory": "x"} for c in SHUFFLED]}),
        json.dumps(
            {"model_type": "segformer", "id2label": {"2": "sky", "0": "road", "1": "car"}, "label2id": {"sky": 2}}
        ),
        json.dumps({"sky": 2, "road": 0, "car": 1}),
        json.dumps({"0": "road", "1": "car", "2": "sky"}),
        "path: ../data\nnc: 3\nnames: [road, car, sky]\n",
        "names:\n  0: road\n  2: sky\n  1: car\n",
        "- road\n- car\n- sky\n",
        "2 sky\n0 road\n1 car\n",
        "0: road\n1: car\n2: sky\n",
        "0,road\n1,car\n2,sky\n",
        "id name\n2 sky\n1 car\n0 road\n",
        "id,name\n2,sky\n0,road\n1,car\n",
        "Idx\tRatio\tName\n2\t0.1\tsky\n0\t0.5\troad\n1\t0.4\tcar\n",
    ],
)
def test_names_come_in_the_order_of_their_ids(text: str) -> None:
    found = parse_class_list(text, "c.txt")
    assert found.names == (("_background_", "road") if text.startswith("__") else NAMES)
    assert found.colors is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(COLORED),
        json.dumps([{"title": n, "color": h, "shape": "bitmap"} for n, h in zip(NAMES, HEX, strict=True)]),
        json.dumps(dict(zip(NAMES, COLORS, strict=True))),
        json.dumps({"labels": [{"name": n, "color": [*c, 255]} for n, c in zip(NAMES, COLORS, strict=True)]}),
        "# label:color_rgb:parts:actions\n"
        + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in zip(NAMES, COLORS, strict=True)),
        "name,r,g,b\n" + rows(",", "name", "r", "g", "b"),
        "name, red, green, blue\n" + rows(", ", "name", "r", "g", "b"),
        rows(",", "name", "r", "g", "b"),
        rows(" ", "r", "g", "b", "name"),
        "".join(f"{r} {g} {b}\t\t{n}\n" for n, (r, g, b) in zip(NAMES, COLORS, strict=True)),
        'id;name;color\n2;sky;"70 130 180"\n0;road;"128 64 128"\n1;car;"0 0 142"\n',
        "".join(f"{n}\t{r} {g} {b}\n" for n, (r, g, b) in zip(NAMES, COLORS, strict=True)),
    ],
)  # fmt: skip
def test_colors_come_with_their_names(text: str) -> None:
    found = parse_class_list(text, "c.csv")
    assert (found.names, found.colors) == (NAMES, COLORS)
    assert found.label_set().colors == COLORS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps([{"id": i, "name": n} for i, n in enumerate(NAMES, 1)]), "ids must be 0 to 2.*'sky' has the id 3"),
        (json.dumps([{"id": i, "name": n} for i, n in zip((0, 1, 1), NAMES, strict=True)]), "'car'.* have the same id"),
        (json.dumps([{"id": i, "name": n} for i, n in zip((0, 1, 9), NAMES, strict=True)]), "'sky' has the id 9"),
        (json.dumps([{"id": -1, "name": "void"}, {"id": 0, "name": "road"}]), "'void' has the id -1"),
        (json.dumps([{"id": 0, "name": "road"}, {"name": "car"}]), "'car' has none; give all or none"),
        (json.dumps([{"id": "zero", "name": "road"}]), "the id of 'road' is 'zero', not an integer"),
        ('{"1": "road", "2": "car"}', "'car' has the id 2"),
        ('{"0": "road", "0": "car"}', "the key '0' is given twice"),
        ("names: {1: road, 2: car}", "'car' has the id 2"),
        ("1 road\n2 car\n", "'car' has the id 2"),
        (json.dumps([{"name": "a", "color": [1, 2, 3]}, {"name": "b"}]), "'b' has none; give all or none"),
        (json.dumps([{"name": "a", "color": "blue"}]), "the color of 'a' is 'blue'; a color is three integers"),
        (json.dumps({"classes": 3, "version": "1"}), "a mapping with the keys classes, version is not a list"),
        ("left,right\nroad,1.5\ncar,2.5\n", "a table without a header; its first line is 'left,right'"),
        ("first\n0 road\n1 car\n", "the first line, 'first', has another form"),
        ("id,name\n0,road\n1\n", "the header has 2 columns, and '1' has 1"),
        ("item {\n  id: 1\n  name: 'road'\n}\n", r"a label map of TensorFlow \(.pbtxt\)"),
        ("<annotation><class>road</class></annotation>", "the file is XML"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer: run `git lfs pull`"),
        ("names: [", "cannot read class names"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_classes_is_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        parse_class_list(text, "c.txt")
    assert "'c.txt'" in str(error.value)
