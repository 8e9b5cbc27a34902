"""Images of a Parquet table that have a path instead of bytes, as Hugging Face's ``Image`` without embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import SourceError
from segbatch.records import Record
from tests.corpus import photographs, write_folder
from tests.inputs import open_source
from tests.sources.contract import SourceContract, read

SAMPLES = photographs(4, side=32)
JPEG = SAMPLES[0][1]
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, values: Sequence[Any], kind: pa.DataType | None = HUGGING_FACE, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(values, kind), **columns}), path, row_group_size=3)
    return str(path)


def records(given: str, **options: Any) -> list[Record]:
    return read(open_source([given], **options), 2)


def told(record: Record) -> str:
    assert record.error is not None
    return f"{record.error.type}: {record.error.message}"


class TestPaths(SourceContract):
    """The contract of every format, by paths alone."""

    def write(self, folder: Path, samples: list[tuple[str, bytes]]) -> str:
        write_folder(folder / "images", samples)
        return write(folder / "a.parquet", [{"bytes": None, "path": f"images/{name}"} for name, _ in samples])

    def id_of(self, name: str) -> str:
        return f"a.parquet/images/{name}"


class TestPathsBesideBytes(TestPaths):
    """Every third row has its bytes."""

    def write(self, folder: Path, samples: list[tuple[str, bytes]]) -> str:
        write_folder(folder / "images", samples)
        rows = [{"bytes": data if i % 3 else None, "path": f"images/{n}"} for i, (n, data) in enumerate(samples)]
        return write(folder / "a.parquet", rows)


@pytest.mark.parametrize(
    "path", ["x.jpg", "./x.jpg", "sub/../x.jpg", "{root}/t/x.jpg", "file://{root}/t/x.jpg", "memory://paths/x.jpg"]
)
def test_a_path_is_relative_to_the_table_or_absolute_or_a_uri(tmp_path: Path, path: str):
    fsspec.filesystem("memory").pipe_file("/paths/x.jpg", JPEG)
    write_folder(tmp_path / "t", [("x.jpg", JPEG), ("sub/y.jpg", b"")])
    named = path.format(root=tmp_path)
    (record,) = records(write(tmp_path / "t/a.parquet", [{"bytes": None, "path": named}]))
    assert record.data == JPEG
    assert record.error is None
    assert record.image_id == f"a.parquet/{named}"
    assert record.source.endswith("x.jpg")


def test_a_table_in_a_store_names_objects_beside_it(tmp_path: Path):
    fs = fsspec.filesystem("memory")
    data = Path(write(tmp_path / "a.parquet", [{"bytes": None, "path": "pictures/x.jpg"}])).read_bytes()
    fs.pipe_file("/tables/a.parquet", data)
    fs.pipe_file("/tables/pictures/x.jpg", JPEG)
    (record,) = records("memory://tables/a.parquet")
    assert (record.data, record.source) == (JPEG, "memory://tables/pictures/x.jpg")


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("path", pa.string()), ("bytes", pa.binary())]),
        pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
        pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
        pa.struct([("width", pa.int32()), ("path", pa.string()), ("bytes", pa.binary()), ("height", pa.int32())]),
    ],
)
def test_types_and_order_of_the_fields_do_not_matter(tmp_path: Path, kind: pa.DataType):
    write_folder(tmp_path, [("x.jpg", JPEG)])
    rows = [{"bytes": None, "path": "x.jpg"}, {"bytes": SAMPLES[1][1], "path": "y.jpg"}]
    assert [r.data for r in records(write(tmp_path / "a.parquet", rows, kind))] == [JPEG, SAMPLES[1][1]]


def test_bytes_of_the_type_null_are_no_bytes(tmp_path: Path):
    write_folder(tmp_path, [("x.jpg", JPEG)])
    given = write(tmp_path / "a.parquet", [{"bytes": None, "path": "x.jpg"}, {"bytes": None, "path": None}], None)
    assert pq.read_schema(given).field("image").type.field("bytes").type == pa.null()
    found = records(given)
    assert found[0].data == JPEG
    assert told(found[1]) == "MissingBytes: row 1 has no image bytes (null) and no path"


def test_each_row_has_its_own_error_and_rows_with_bytes_stay_as_they_are(tmp_path: Path):
    write_folder(tmp_path, [("x.jpg", JPEG), ("large.jpg", bytes(60_000)), ("folder/y.jpg", b"")])
    rows = [
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": JPEG, "path": "gone-too.jpg"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": ""},
        None,
        {"bytes": b"", "path": "x.jpg"},
        {"bytes": b"", "path": None},
        {"bytes": None, "path": "large.jpg"},
        {"bytes": None, "path": "folder"},
        {"bytes": None, "path": "nosuch://key:very-secret@host/x"},
        {"bytes": None, "path": "x.jpg"},
    ]
    given = write(tmp_path / "a.parquet", rows, id=[f"r{i}" for i in range(len(rows))])
    found = records(given, max_record_bytes=50_000)
    assert [r.image_id for r in found] == [f"a.parquet/r{i}" for i in range(len(rows))]
    assert told(found[0]) == f"MissingObject: {tmp_path}/gone.jpg: does not exist"
    assert [found[i].data for i in (1, 5, 6, 10)] == [JPEG, JPEG, b"", JPEG]
    assert [told(found[i]).split(" has ")[0] for i in (2, 3, 4)] == [f"MissingBytes: row {i}" for i in (2, 3, 4)]
    assert f"RecordTooLarge: {tmp_path}/large.jpg: 60,000 bytes" in told(found[7])
    assert f"{tmp_path}/folder: is a folder" in told(found[8])
    assert "very-secret" not in "".join(map(repr, found))


def test_a_text_column_of_paths_is_read_as_a_manifest_or_the_option_is_named(tmp_path: Path):
    write_folder(tmp_path, [("x.jpg", JPEG)])
    given = write(tmp_path / "a.parquet", ["x.jpg"], pa.string())
    with pytest.raises(SourceError, match="uri_column if a column holds paths or URIs of images"):
        records(given)
    with pytest.raises(SourceError, match="give it as uri_column"):
        records(given, image_column="image")
    assert [r.data for r in records(given, uri_column="image")] == [JPEG]
