"""Which column holds the images: told by the values, or refused with what each column holds."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import SourceError
from tests.corpus import encode, photograph, photographs
from tests.inputs import open_source
from tests.sources.contract import read

PHOTOS = [data for _, data in photographs(4, side=64)]
THUMBS = [data for _, data in photographs(4, side=16)]
MASKS = [encode(np.full(photograph(i, 64).shape[:2], i, np.uint8), "PNG") for i in range(4)]
DIGESTS = [hashlib.sha256(data).digest() for data in PHOTOS]
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def hf(images: list[bytes] | list[None]) -> pa.Array:
    return pa.array([{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)], HUGGING_FACE)


def table(folder: Path, columns: dict[str, Any], name: str = "a.parquet", **options: Any) -> str:
    pq.write_table(pa.table(columns), folder / name, **options)
    return str(folder / name)


def images(path: str, **options: Any) -> list[bytes | None]:
    """What a first run reads, after the look into the first rows."""
    source = open_source([path], **options)
    source.check(list(source.shards()))
    return [record.data for record in read(source, 2)]


def refusal(path: str, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        images(path, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(PHOTOS, pa.large_binary()),
        pa.array(PHOTOS, pa.binary_view()),
        pa.array(PHOTOS).dictionary_encode(),
        hf(PHOTOS),
        pa.array([{"content": {"encoded": p}, "width": 64} for p in PHOTOS]),
        pa.array([list(p) for p in PHOTOS], pa.list_(pa.uint8())),
        pa.array([list(np.frombuffer(p, np.int8)) for p in PHOTOS], pa.large_list(pa.int8())),
        pa.array([list(p) for p in PHOTOS]),
        pa.array([base64.b64encode(p).decode() for p in PHOTOS]),
        pa.array([base64.encodebytes(p).decode().rstrip("=\n") for p in PHOTOS], pa.large_string()),
        pa.array(["data:image/jpeg;base64," + base64.urlsafe_b64encode(p).decode() for p in PHOTOS], pa.string_view()),
    ],
    ids=lambda values: str(values.type)[:40],
)
@pytest.mark.parametrize("name", ["image", "Whatever"])
def test_images_are_read_however_they_are_stored(tmp_path: Path, values: pa.Array, name: str) -> None:
    path = table(tmp_path, {"sha256": DIGESTS, name: values, "caption": ["a", "b", "c", "d"]}, row_group_size=3)
    assert images(path) == PHOTOS
    assert images(path, image_column=name) == PHOTOS


@pytest.mark.parametrize(
    "columns",
    [
        {"content": DIGESTS, "picture": PHOTOS},
        {"image": PHOTOS, "thumbnail": THUMBS},
        {"image": hf(PHOTOS), "annotation": hf(MASKS)},
        {"preview": THUMBS, "Photo": PHOTOS},
        {"image": [None, None, None, None], "scan": PHOTOS},
        {"depth": PHOTOS, "id": [1, 2, 3, 4]},
    ],
    ids=lambda columns: "-".join(columns),
)
def test_the_one_column_of_images_of_full_size_is_taken(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert images(table(tmp_path, columns)) == PHOTOS


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"jpg": THUMBS, "photo": PHOTOS}, "jpg: JPEG 16 x 16, photo: JPEG 64 x 64"),
        ({"image": THUMBS, "scan": PHOTOS}, "image: JPEG 16 x 16, scan: JPEG 64 x 64"),
        ({"left": hf(PHOTOS), "right": hf(PHOTOS)}, "left: JPEG 64 x 64, right: JPEG 64 x 64"),
        ({"jpg": PHOTOS, "scan": PHOTOS}, "jpg: JPEG 64 x 64, scan: JPEG 64 x 64"),
        ({"image": PHOTOS, "rgb_right": PHOTOS}, "image: JPEG 64 x 64, rgb_right: JPEG 64 x 64"),
        ({"jpg": PHOTOS, "png": MASKS}, "jpg: JPEG 64 x 64, png: PNG 64 x 64"),
        (
            {"thumb": THUMBS, "image": [base64.b64encode(p).decode() for p in THUMBS], "photo": PHOTOS},
            "thumb: JPEG 16 x 16, photo: JPEG 64 x 64, image: JPEG 16 x 16",
        ),
        ({"uri": list("abcd"), "thumb": THUMBS}, "column thumb (JPEG 16 x 16), and uri may be meant"),
        ({"photo": [None] * 4, "thumb": THUMBS}, "column thumb (JPEG 16 x 16), and photo may be meant"),
        ({"image": hf([None] * 4), "thumb": THUMBS}, "image: paths of images, thumb: JPEG 16 x 16"),
        ({"a": pa.nulls(4, pa.binary()), "b": pa.nulls(4, pa.binary())}, "a: null in the first rows, b: null"),
    ],
)
def test_several_columns_of_images_are_refused_with_what_they_hold(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    path = table(tmp_path, columns)
    said = refusal(path)
    assert says in said
    assert "--image-column" in said
    for name in columns.keys() - {"a", "uri", "photo"}:
        assert len(images(path, image_column=name)) == 4


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"sha256": DIGESTS, "n": [1, 2, 3, 4]}, "sha256: 32 bytes that are not an image"),
        ({"image": DIGESTS}, "image: 32 bytes that are not an image"),
        ({"image": [b"<html><body>404</body></html>", b"<html>", b"<html>", b"<html>"]}, "HTML"),
        ({"image": pa.array([photograph(i, 16).tolist() for i in range(4)])}, "write pixels as PNG or JPEG"),
        ({"image": pa.array([[0.5] * 12] * 4)}, "write pixels as PNG or JPEG"),
        ({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((4, 8, 8, 3), np.uint8))}, "write pixels as"),
        ({"images": pa.array([[{"bytes": p, "path": None}] * 2 for p in PHOTOS])}, "write one row per image"),
        ({"image": ["a.jpg"] * 4}, "uri_column if a column holds paths or URIs"),
    ],
)
def test_a_table_without_encoded_images_is_refused_with_what_it_holds(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    said = refusal(table(tmp_path, columns))
    assert says in said
    assert next(iter(columns)) in said
    assert "image_column" in said or "--image-column" in said


def test_a_named_column_is_read_whatever_its_first_rows_hold(tmp_path: Path) -> None:
    path = table(tmp_path, {"image": [b"<html>"] * 10 + PHOTOS})
    assert "holds no image in its first rows: 6 bytes" in refusal(path)
    assert images(path, image_column="image")[10:] == PHOTOS
    said = refusal(path, image_column="Image")
    assert "no column 'Image'; the columns are image (binary)" in said
    two = table(tmp_path, {"image": pa.array([{"small": t, "full": p} for t, p in zip(THUMBS, PHOTOS, strict=True)])})
    assert "image.small: JPEG 16 x 16, image.full: JPEG 64 x 64" in refusal(two)
    assert "image.small or image.full" in refusal(two, image_column="image")
    assert images(two, image_column="image.full") == PHOTOS


def test_rows_that_are_no_bytes_are_error_rows(tmp_path: Path) -> None:
    good = base64.b64encode(PHOTOS[0]).decode()
    errors = [r.error for r in read(open_source([table(tmp_path, {"image": [good, "not base64!", None]})]))]
    assert [e and e.type for e in errors] == [None, "BadEncoding", "MissingBytes"]
    assert errors[1] is not None
    assert errors[1].message == "text that is not base64: 'not base64!'"
    errors = [r.error for r in read(open_source([table(tmp_path, {"image": [list(PHOTOS[0]), [300], [None]]})]))]
    assert [e and e.type for e in errors] == [None, "BadEncoding", "BadEncoding"]


def test_columns_of_one_name_are_refused_only_where_they_are_meant(tmp_path: Path) -> None:
    def written(names: list[str], *values: Any) -> str:
        pq.write_table(pa.table([pa.array(v) for v in values], names=names), tmp_path / "a.parquet")
        return str(tmp_path / "a.parquet")

    assert images(written(["id", "x", "x", "image"], [1, 2], [3, 4], ["5", "6"], PHOTOS[:2])) == PHOTOS[:2]
    twice = written(["id", "image", "image", "photo"], [1, 2], PHOTOS[:2], THUMBS[:2], PHOTOS[2:])
    assert "2 columns are called 'image'" in refusal(twice)
    assert "2 columns are called 'image'" in refusal(twice, image_column="image")
    assert images(twice, image_column="photo") == PHOTOS[2:]
    assert images(written(["id", "hash", "hash", "image"], [1, 2], DIGESTS[:2], DIGESTS[:2], PHOTOS[:2])) == PHOTOS[:2]
    ids = written(["id", "id", "image", "n"], [1, 2], [3, 4], PHOTOS[:2], [5, 6])
    assert "2 columns are called 'id'" in refusal(ids)
    assert images(ids, id_column="n") == PHOTOS[:2]


def test_null_rows_and_files_without_rows_come_before_what_is_looked_at(tmp_path: Path) -> None:
    kind = pa.schema([("content", pa.binary()), ("picture", pa.binary())])
    pq.write_table(kind.empty_table(), tmp_path / "a.parquet")
    assert images(str(tmp_path / "a.parquet")) == []
    with pq.ParquetWriter(tmp_path / "b.parquet", kind) as writer:
        writer.write_table(kind.empty_table())
        writer.write_table(pa.table({"content": [None] * 20, "picture": [None] * 20}, kind))
    table(tmp_path, {"content": DIGESTS, "picture": PHOTOS}, "c.parquet")
    corpus = open_source([str(tmp_path)]).corpus()
    assert [s.records for s in corpus.shards] == [0, 20, 4]
    assert corpus.image_column == "picture"
    assert images(str(tmp_path)) == [None] * 20 + PHOTOS


def test_files_of_different_columns_are_each_read_by_their_own(tmp_path: Path) -> None:
    table(tmp_path, {"id": [1], "image": PHOTOS[:1]}, "a.parquet")
    table(tmp_path, {"content": DIGESTS[:1], "picture": PHOTOS[1:2]}, "b.parquet")
    table(tmp_path, {"uri": ["c.jpg"], "note": ["n"]}, "c.parquet")
    (tmp_path / "c.jpg").write_bytes(PHOTOS[2])
    source = open_source([str(tmp_path / "*.parquet")])
    assert [r.data for r in read(source)] == PHOTOS[:3]
    corpus = source.corpus()
    assert [s.format for s in corpus.shards] == ["parquet", "parquet", "manifest"]
    assert corpus.image_column is None  # no single one is read in all files
    assert [text for name, text in corpus.notes if name == "images"] == [
        "column image: JPEG 64 x 64 (1 of 3 shards)",
        "column picture: JPEG 43 x 64 (1 of 3 shards)",
        "URIs in column uri (1 of 3 shards)",
    ]
    (record,) = read(open_source([str(tmp_path / "c.parquet")], image_column="picture"))
    assert record.data == PHOTOS[2]  # a manifest, to which the option says nothing
    table(tmp_path, {"jpg": THUMBS, "photo": PHOTOS}, "d.parquet")
    assert "d.parquet: several columns hold images" in refusal(str(tmp_path / "*.parquet"))


def test_a_table_of_uris_beside_digests_is_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "c.jpg").write_bytes(PHOTOS[2])
    assert images(table(tmp_path, {"uri": ["c.jpg"], "sha256": DIGESTS[:1]})) == [PHOTOS[2]]


def test_a_data_set_of_hugging_face_is_read(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image(), "n": datasets.Value("int32")})
    rows = {
        "image": [{"bytes": p, "path": None} for p in PHOTOS],
        "label": [{"bytes": m, "path": None} for m in MASKS],
        "n": [1, 2, 3, 4],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    assert images(str(tmp_path / "train.parquet")) == PHOTOS
    assert images(str(tmp_path / "train.parquet"), image_column="label") == MASKS
    assert images(str(tmp_path / "train.parquet"), label_column="label") == PHOTOS
