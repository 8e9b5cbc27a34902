"""The comparison of two outputs finds each kind of difference, and a doctored checkout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.corpus import encode
from tests.same_masks import checkouts
from tests.same_masks.__main__ import report
from tests.same_masks.cases import cases, write_corpus
from tests.same_masks.compare import Allowance, Difference, compare, compare_tables, not_allowed, read_allowances

ROOT = Path(__file__).resolve().parents[2]


def mask(pixels: int = 0, palette: int = 0, level: int = 1, entries: int = 17) -> bytes:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 8)
    image.putpalette([palette, 0, 0, *[1] * 3 * (entries - 1)])
    for i in range(pixels):
        image.putpixel((i, 0), 0 if i else 7)
    return encode(image, "PNG", compress_level=level)


def table(**changes: object) -> pa.Table:
    row = {
        "image_id": "a",
        "mask": mask(),
        "confidence": 0.5,
        "classes": [{"class_id": 0, "confidence": 0.5}, {"class_id": 1, "confidence": 0.25}],
        "error": None,
    }
    failed = {"image_id": "b", "error": {"stage": "decode", "type": "EmptyImage"}}
    return pa.Table.from_pylist([{**row, **changes}, {**dict.fromkeys(row), **failed}])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"mask": mask(level=9)}, {"mask bytes": np.inf}),
        ({"mask": mask(palette=9)}, {"mask bytes": np.inf, "mask palette": np.inf}),
        ({"mask": mask(entries=256)}, {"mask bytes": np.inf}),
        ({"mask": mask(pixels=3)}, {"mask bytes": np.inf, "mask pixels": 3}),
        ({"mask": None}, {"mask bytes": np.inf, "mask palette": np.inf, "mask pixels": np.inf}),
        ({"confidence": 0.625}, {"confidence": 0.125}),
        ({"confidence": float("nan")}, {"confidence": np.inf}),
        ({"classes": [{"class_id": 0, "confidence": 0.5}]}, {"classes.class_id": np.inf, "classes.confidence": np.inf}),
        ({"error": {"stage": "refine", "type": "X"}}, {"error.stage": np.inf, "error.type": np.inf}),
        ({"image_id": "c"}, {"row": np.inf}),
    ],
)
def test_each_kind_of_difference(changes: dict[str, object], expected: dict[str, float]) -> None:
    found = list(compare_tables("case", table(), table(**changes), key="image_id"))
    assert {d.column: d.size for d in found} == expected


def test_columns_of_one_side_are_told_once() -> None:
    more = table().append_column("marginal", pa.array([1.0, None]))
    (found,) = compare_tables("case", table(), more, key="image_id")
    assert (found.column, found.image, "here alone" in found.what) == ("marginal", "-", True)


def test_what_is_allowed_and_what_allows_nothing() -> None:
    found = [Difference("voc-none", "a", "mask pixels", "3 of 64 pixels differ", 3)]
    few, enough = (Allowance("voc-*", "mask pixels", "rounding", n) for n in (2, 3))
    other = Allowance("camvid-*", "*", "tuned")
    assert not_allowed(found, [few, other]) == found
    assert not_allowed(found, [few, enough, other]) == []
    assert report([], [few, enough, other]).splitlines() == [
        "allowed, and did not occur: voc-* mask pixels (rounding)",
        "allowed, and did not occur: camvid-* * (tuned)",
    ]
    assert "voc-none  a  mask pixels: 3 of 64 pixels differ" in report(found, [])


def test_the_file_of_allowances_is_right() -> None:
    read_allowances(ROOT / "tests" / "same_masks" / "allowed.yaml")


def change(checkout: Path, before: str, after: str) -> None:
    """Replace ``before`` in the one module that has it."""
    (module,) = [f for f in (checkout / "segbatch").rglob("*.py") if before in f.read_text()]
    module.write_text(module.read_text().replace(before, after))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``in``, ``cases.json`` with one case, and ``here``, what this checkout makes of it."""
    folder = tmp_path_factory.mktemp("same")
    write_corpus(folder / "in")
    (folder / "cases.json").write_text(json.dumps({"voc-densecrf": cases(folder / "in")["voc-densecrf"]}))
    run(checkouts.copy(folder / "same"), folder, "here")
    return folder


def run(checkout: Path, folder: Path, output: str) -> Path:
    checkouts.give_native(checkout, print)
    checkouts.run_cases(checkouts.python_of(checkout), checkout, folder / "cases.json", folder / output, print)
    return folder / output / "voc-densecrf"


@pytest.mark.long  # fifteen seconds each: a Ray of its own
@pytest.mark.parametrize(
    ("doctored", "column"),
    [
        ({}, None),
        ({"Bilateral(self.theta_alpha,": "Bilateral(0.9 * self.theta_alpha,"}, "confidence"),
        (
            {
                "geometry=Geometry(stride=4, multiple=16": "geometry=Geometry(stride=8, multiple=16",
                "return self.classifier(self.decoder(torch.cat([high, low], dim=1)))": "return self.classifier("
                "self.decoder(torch.cat([high, low], dim=1)))[:, :, ::2, ::2]",
            },
            "mask pixels",
        ),
        ({"return colors.tobytes()": "return colors[::-1].tobytes()"}, "mask palette"),
    ],
    ids=["nothing", "theta", "stride", "palette"],
)
def test_a_changed_checkout_is_found(
    folder: Path, tmp_path: Path, doctored: dict[str, str], column: str | None
) -> None:
    checkout = checkouts.copy(tmp_path / "base")
    for before, after in doctored.items():
        change(checkout, before, after)
    output = run(checkout, folder, tmp_path.name)
    found = {d.column for d in compare("voc-densecrf", output, folder / "here" / "voc-densecrf")}
    assert column in found if column else not found
