"""Shards as a source of labeled images: tars whose samples hold both, Parquet with a column for each."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segbatch.config.training import TrainSpec
from segbatch.errors import SegbatchError
from segbatch.training.inputs import open_examples
from tests.training.tiny import LABELS, pictures

COUNT = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("data") / "pictures", COUNT)


def encoded(folder: Path, part: str, index: int) -> bytes:
    return (folder / part / f"{index:03}.png").read_bytes()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def examples(told: list[str] | None = None, **fields: Any) -> Any:
    spec = TrainSpec.create(output="unused", ignore=[9], **fields)
    found, survey = open_examples(spec, spec.inputs, spec.labels, LABELS)
    if told is not None:
        told += survey.notes
    return found


def assert_same(found: Any, folder: Path, indices: list[int]) -> None:
    direct = examples(inputs=[str(folder / "images")], labels=str(folder / "labels"))
    assert len(found) == len(indices)
    for got, wanted in enumerate(indices):
        for a, b in zip(found.load(got), direct.load(wanted), strict=True):
            np.testing.assert_array_equal(a, b)


def test_tars_hold_what_a_folder_holds(folder: Path, tmp_path: Path) -> None:
    members = []
    for i in range(COUNT):
        image = "images" if i == 3 else None
        members += [(f"a/{i}.png" if image is None else f"a/{i}.jpg", encoded(folder, "images", i))]
        members += [(f"a/{i}.seg.png", encoded(folder, "labels", i)), (f"a/{i}.json", b"{}")]
    halves = [tar(tmp_path / "0.tar", members[:9]), tar(tmp_path / "1.tar", members[9:])]
    found = examples(inputs=[str(h) for h in halves], label_column="seg.png")
    assert_same(found, folder, list(range(COUNT)))


def test_parquet_holds_what_a_folder_holds(folder: Path, tmp_path: Path) -> None:
    images = [encoded(folder, "images", i) for i in range(COUNT)]
    labels = [None if i == 2 else {"bytes": encoded(folder, "labels", i), "path": None} for i in range(COUNT)]
    images[5] = None
    table = pa.table({"image": pa.array(images, pa.binary()), "mask": pa.array(labels)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    told: list[str] = []
    found = examples(told, inputs=[str(tmp_path / "a.parquet")], label_column="mask")
    assert_same(found, folder, [0, 1, 3, 4, 6])
    assert told == ["1 of 7 records have no label: left out", "1 of 7 records cannot be read: left out"]


def test_what_holds_no_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    only = tar(tmp_path / "a.tar", [("0.jpg", encoded(folder, "images", 0))])
    with pytest.raises(SegbatchError, match=r"no record has both an image and a label in tar members \*\.png"):
        examples(inputs=[str(only)], label_column="png")
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(SegbatchError, match=r"label_column: .*no column 'mask'; the columns are image \(binary\)"):
        examples(inputs=[str(tmp_path / "a.parquet")], label_column="mask")
    with pytest.raises(SegbatchError, match="the inputs are images; give a folder as --labels"):
        examples(inputs=[str(folder / "images")], label_column="png")
    with pytest.raises(SegbatchError, match="give a folder of label images, or for shards --label-column"):
        examples(inputs=[str(folder / "images")])


def test_a_label_that_is_no_label_names_its_example(folder: Path, tmp_path: Path) -> None:
    color = io.BytesIO()
    Image.new("RGB", (40, 30)).save(color, "PNG")
    shard = tar(tmp_path / "a.tar", [("0.jpg", encoded(folder, "images", 0)), ("0.png", color.getvalue())])
    with pytest.raises(SegbatchError, match="of example 0 is not an image of class ids"):
        examples(inputs=[str(shard)], label_column="png").load(0)
