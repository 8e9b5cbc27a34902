"""Rows of an output, selected by class, confidence, error or an expression, and as a dataset of Arrow."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

import segbatch
from segbatch.errors import SpecError
from segbatch.operations.compact import compact
from segbatch.output.compaction import merge
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import RunRecord
from segbatch.results.dataset import MaskDataset
from segbatch.results.rows import MaskRows
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_folder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An output of nine masks and one error, three files."""
    folder = tmp_path_factory.mktemp("rows")
    inputs = write_folder(folder / "in", [*photographs(9, side=40), ("page.jpg", b"<html>gone</html>")])
    here.run(here.spec([str(inputs)], folder / "out"))
    return str(folder / "out")


def ids(rows: MaskRows) -> list[str]:
    return [row.image_id for row in rows]


def test_a_selection_has_the_rows_that_satisfy_every_condition(output: str) -> None:
    dataset = segbatch.open(output)
    rows = list(dataset)
    masks = [row for row in rows if row.confidence is not None]
    middle = float(np.median([row.confidence for row in masks if row.confidence is not None]))
    least = masks[0].classes[-1].class_id
    expected = {
        "errors": [row for row in rows if row.error is not None],
        "masks": masks,
        "low": [row for row in masks if row.confidence is not None and row.confidence <= middle],
        "class": [row for row in masks if least in {count.class_id for count in row.classes}],
        "wide": [row for row in rows if row.width is not None and row.height is not None and row.width > row.height],
    }
    selections = {
        "errors": dataset.select(errors=True),
        "masks": dataset.select(errors=False),
        "low": dataset.select(max_confidence=middle),
        "class": dataset.select(classes=[dataset.classes.names[least]]),
        "wide": dataset.select(where=pc.field("width") > pc.field("height")),
    }
    for name, selection in selections.items():
        assert list(pickle.loads(pickle.dumps(selection))) == expected[name], name
        assert len(selection) == len(expected[name]), name
    assert list(dataset.select(classes=[least])) == expected["class"]
    both = [row for row in expected["low"] if row in expected["class"]]
    assert list(dataset.select(max_confidence=middle).select(classes=[least])) == both
    assert list(dataset.select(max_confidence=middle, classes=[least])) == both
    table = dataset.select(min_confidence=middle).to_arrow(["image_id", "confidence"]).read_all()
    assert table.column_names == ["image_id", "confidence"]
    assert min(table["confidence"].to_pylist()) >= np.float32(middle)


def test_batches_have_the_columns_asked_for_and_every_row_once(output: str) -> None:
    dataset = segbatch.open(output)
    batches = list(dataset.batches(["image_id", "confidence"]))
    assert {tuple(batch.schema.names) for batch in batches} == {("image_id", "confidence")}
    assert [name for batch in batches for name in batch["image_id"].to_pylist()] == ids(dataset)


@pytest.mark.parametrize(
    ("given", "remedy"), [("midle", "did you mean 'middle'"), (99, "it has the ids 0 to 2: dark, middle, bright")]
)
def test_an_unknown_class_is_refused_with_those_that_there_are(output: str, given: str | int, remedy: str) -> None:
    with pytest.raises(SpecError, match=rf"classes: got {given!r}, which is not a class of the output; {remedy}"):
        segbatch.open(output).select(classes=[given])


def test_an_expression_or_a_column_that_does_not_fit_is_refused_with_the_columns(output: str) -> None:
    dataset = segbatch.open(output)
    columns = "image_id, source, index, height, width"
    with pytest.raises(SpecError, match=f"where: .*area.*; the columns are {columns}, classes"):
        len(dataset.select(where=pc.field("area") > 9))
    with pytest.raises(SpecError, match=r"where: .*the columns are"):
        len(dataset.select(where=pc.field("width") > "wide"))
    with pytest.raises(
        SpecError, match=f"columns: got 'area', which is not a column of the output; it has {columns}, mask"
    ):
        list(dataset.batches(["area"]))


def test_an_overlay_has_the_colors_of_the_classes_and_refuses_another_size(output: str) -> None:
    dataset = segbatch.open(output)
    row = next(iter(dataset.select(errors=False)))
    assert row.mask is not None
    black = np.zeros((*row.mask.shape, 3), np.uint8)
    drawn = np.asarray(row.overlay(black))
    assert np.array_equal(drawn, np.asarray(row.overlay(Image.fromarray(black).convert("RGBA"))))
    colors = {tuple(int(c * 0.55 + 0.5) for c in dataset.classes.colors[k.class_id]) for k in row.classes}
    assert {tuple(map(int, pixel)) for pixel in drawn.reshape(-1, 3)} <= colors | {(255, 255, 255)}
    with pytest.raises(SpecError, match=r"got an image of shape \(8, 8, 3\), its mask needs \(\d+, \d+, 3\)"):
        row.overlay(black[:8, :8])
    (failed,) = dataset.select(errors=True)
    with pytest.raises(SpecError, match=r"page\.jpg: has no mask to draw"):
        failed.overlay(black)


def test_the_class_table_is_that_of_the_finished_output(output: str) -> None:
    dataset = segbatch.open(output)
    assert dataset.class_table().equals(pq.read_table(f"{output}/stats/classes.parquet"))


@pytest.mark.parametrize("root", ["", "memory://rows-of-an-output"])
def test_a_dataset_of_arrow_has_the_current_rows_on_any_store(root: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", photographs(9, side=40))
    spec = here.spec([str(folder)], root or tmp_path / "out", chunk_size=2)
    here.run(spec)
    before = {row.image_id: row.png for row in MaskDataset.open(spec.output)}
    plain = segbatch.open(spec.output).to_arrow_dataset()
    assert plain.count_rows() == 9
    compact(spec.output, target_bytes=2**20)
    store = Store(spec.output)
    ledger = Ledger.read(store)
    left = frozenset(list(ledger.filenames())[1::2])
    merge(store, ledger, [ledger.files()[0].name], RunRecord.need(store).claim, without=left)
    assert Ledger.read(store).partial
    current = pickle.loads(pickle.dumps(segbatch.open(spec.output))).to_arrow_dataset()
    rows = current.to_table(columns=["image_id", "mask"]).to_pylist()
    assert (len(rows), {row["image_id"]: row["mask"] for row in rows}) == (9, before)
    wanted = next(iter(before))
    assert current.to_table(filter=pc.field("image_id") == wanted)["mask"].to_pylist() == [before[wanted]]
    duckdb = pytest.importorskip("duckdb", reason="of the extra query")
    connection = duckdb.connect(config={"enable_external_access": "false"})
    connection.register("masks", current)
    assert connection.execute("select count(*), count(distinct image_id) from masks").fetchall() == [(9, 9)]
