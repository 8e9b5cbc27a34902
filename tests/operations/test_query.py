"""SQL over outputs: views, functions, recipes of the documentation, and what SQL must not reach."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import segbatch
from segbatch.errors import OutputError, SpecError
from segbatch.operations.query import query
from segbatch.results.dataset import MaskDataset
from tests import here
from tests.corpus import encode, photographs, write_folder

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b[31mred[bold].jpg"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``out`` and ``faded`` of the same classes, ``reordered`` of others; 8 masks and an error each."""
    folder = tmp_path_factory.mktemp("query")
    images = photographs(6, side=64)
    files = [*images, ("twin.jpg", images[0][1]), (HOSTILE, images[1][1]), ("page.jpg", b"<html>gone</html>")]
    inputs = [str(write_folder(folder / "in", files))]
    here.run(here.spec(inputs, folder / "out"))
    here.run(here.spec(inputs, folder / "faded", model="tests.networks:Faded"))
    here.run(here.spec(inputs, folder / "reordered", model="tests.networks:Reordered"))
    return folder


def test_the_views_have_all_rows_and_their_classes(outputs: Path) -> None:
    rows = list(MaskDataset.open(str(outputs / "out")))
    masks = query(str(outputs / "out"), "FROM masks ORDER BY image_id").to_pylist()
    assert [row["image_id"] for row in masks] == sorted(row.image_id for row in rows if row.error is None)
    assert all(row["mask"].startswith(b"\x89PNG") for row in masks)
    classes = query(str(outputs / "out"), "FROM classes").to_pylist()
    names = MaskDataset.open(str(outputs / "out")).classes.names
    wanted = {(r.image_id, c.class_id, names[c.class_id], c.pixels, c.fraction) for r in rows for c in r.classes}
    assert {(c["image_id"], c["class_id"], c["name"], c["pixels"], c["fraction"]) for c in classes} == wanted
    (error,) = query(str(outputs / "out"), "FROM errors").to_pylist()
    assert (error["image_id"], error["stage"], error["type"]) == ("page.jpg", "decode", "UnknownFormat")


def test_the_functions(outputs: Path) -> None:
    sql = """SELECT image_id, share(classes, 'dark') AS dark, iou(mask, mask('twin.jpg')) AS likeness,
                    class_hash(classes) AS hash, class_name(class_id('bright')) AS name FROM masks"""
    found = {row["image_id"]: row for row in segbatch.query(str(outputs / "out"), sql).to_pylist()}
    for row in MaskDataset.open(str(outputs / "out")):
        if row.mask is not None:
            assert found[row.image_id]["dark"] == pytest.approx((row.mask == 0).mean(), abs=1e-6)
    first = next(name for name in found if name.startswith("0000"))
    assert found["twin.jpg"]["likeness"] == found[first]["likeness"] == 1.0
    assert found["twin.jpg"]["hash"] == found[first]["hash"]
    assert min(row["likeness"] for row in found.values()) < 0.7
    assert {row["name"] for row in found.values()} == {"bright"}


def test_two_outputs_are_compared(outputs: Path) -> None:
    sql = """SELECT image_id, iou(a.mask, b.mask) AS agreement, other_share(b.classes, 'dark') AS dark
             FROM masks a JOIN other_masks b USING (image_id) ORDER BY agreement"""
    rows = query(str(outputs / "out"), sql, other=str(outputs / "faded")).to_pylist()
    assert len(rows) == 8
    assert 0 < rows[0]["agreement"] < 0.9
    with pytest.raises(SpecError, match="different classes; segbatch diff matches them by name"):
        query(str(outputs / "out"), sql, other=str(outputs / "reordered"))
    dark = "SELECT other_share(classes, 'gray') FROM other_masks"
    assert query(str(outputs / "out"), dark, other=str(outputs / "reordered")).num_rows == 8


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT share(classes, 'brihgt') FROM masks", "^sql: unknown class 'brihgt'; did you mean 'bright'"),
        ("SELECT nme FROM classes", '^sql: .*"nme" not found.*Candidate bindings: .*"name"'),
        ("SELECT * FROM nope", "^sql: .*nope does not exist.*masks, classes and errors$"),
        ("SELEC 1", "^sql: .*syntax error"),
        ("", "^sql: got "),
        ("-- nothing", "^sql: give one statement that returns rows"),
        ("SELECT 1; SELECT 2", "^sql: give one statement that returns rows"),
        ("CREATE TABLE t AS SELECT 1", "^sql: give one statement that returns rows"),
        ("SELECT iou('a'::BLOB, mask) FROM masks", "^sql: .*not a mask"),
    ],
)
def test_an_invalid_statement_is_one_line(outputs: Path, sql: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        query(str(outputs / "out"), sql)
    assert "\n" not in str(refused.value)
    assert str(ROOT) not in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{file}')",
        "FROM '{file}'",
        "FROM glob('{folder}/*')",
        "COPY masks TO '{folder}/copy.csv'",
        "COPY (SELECT 1) TO '{folder}/copy.csv'",
        "ATTACH '{folder}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "PRAGMA enable_external_access = true",
        "FROM secret",
        "CALL load_aws_credentials()",
        "EXPORT DATABASE '{folder}/all'",
    ],
)
def test_sql_reaches_no_file_no_variable_and_no_setting(outputs: Path, sql: str, tmp_path: Path) -> None:
    secret = pa.table({"a": ["secret"]})
    (tmp_path / "file.csv").write_text("a\nsecret\n")
    with pytest.raises(SpecError):
        print(query(str(outputs / "out"), sql.format(file=tmp_path / "file.csv", folder=tmp_path)), secret.num_rows)
    assert [file.name for file in tmp_path.iterdir()] == ["file.csv"]


def recipes() -> list[str]:
    """The statements of docs/results.md, section "Query"."""
    page = (ROOT / "docs/results.md").read_text()
    section = page.split("\n## Query\n")[1].split("\n## ")[0]
    return re.findall(r"^```sql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("sql", recipes())
def test_a_recipe_of_the_documentation_runs(outputs: Path, sql: str) -> None:
    for theirs, ours in (("road", "dark"), ("bicycle", "bright"), ("person", "middle")):
        sql = sql.replace(f"'{theirs}'", f"'{ours}'")
    found = query(str(outputs / "out"), sql, other=str(outputs / "faded"))
    assert found.num_rows > 0, sql


def test_there_are_five_recipes() -> None:
    assert len(recipes()) >= 5


def test_a_damaged_file_is_named_in_one_line(outputs: Path, tmp_path: Path) -> None:
    images = [(f"{i}.png", encode(np.full((8, 8, 3), 50 * i, np.uint8), "PNG")) for i in range(5)]
    here.run(here.spec([str(write_folder(tmp_path / "in", images))], tmp_path / "out"))
    file = max((tmp_path / "out/masks").iterdir(), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[4:200] = bytes(196)
    file.write_bytes(data)
    with pytest.raises(OutputError, match="a result file cannot be read") as failed:
        query(str(tmp_path / "out"), "SELECT md5(mask), image_id, source FROM masks")
    assert "\n" not in str(failed.value)
