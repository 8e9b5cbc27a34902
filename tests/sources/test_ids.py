"""Ids of every type are what their owner would write."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbatch.errors import SourceError
from segbatch.records import ChunkSelection
from segbatch.sources.unique_ids import UniqueIds
from tests.corpus import photographs
from tests.inputs import open_source
from tests.sources.contract import only, read

JPEGS = [data for _, data in photographs(3, side=32)]
UUIDS = [uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF + i) for i in range(3)]
MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9)
HALF = datetime.timedelta(microseconds=500_000)
LATER = pa.array([MOMENT, MOMENT + HALF, None])


def ids(path: Path, **options: str) -> list[str]:
    return [r.image_id.removeprefix(f"{path.name}/") for r in read(open_source([str(path)], **options), 2)]  # type: ignore[arg-type]


def written(folder: Path, values: pa.Array, **columns: pa.Array) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table({"id": values, **columns, "image": JPEGS[: len(values)]}), path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array(["north", "süd", None]).dictionary_encode(), ["north", "süd", "#2"]),
        (pa.array([b"a", b"b", b"a"]).dictionary_encode(), ["a", "b", "a#2"]),
        (pa.array([u.bytes for u in UUIDS], pa.uuid()), [str(u) for u in UUIDS]),
        (pa.array([u.bytes for u in UUIDS], pa.binary(16)), [u.hex for u in UUIDS]),
        (pa.array([b"north", "süd".encode(), b""]), ["north", "süd", "#2"]),
        (pa.array([b"\xffa", b"tab\there", b"b"], pa.binary_view()), ["ff61", "7461620968657265", "b"]),
        (pa.array(["x", "y", "z"], pa.string_view()), ["x", "y", "z"]),
        (pa.array(["x", "y", "z"], pa.large_string()), ["x", "y", "z"]),
        (pa.array([7.0, 7.25, float("nan")]), ["7", "7.25", "#2"]),
        (pa.array([0.1, 1e10, None], pa.float32()), ["0.1", "10000000000", "#2"]),
        (pa.array([float("inf"), 1e300, -0.0]), ["inf", "1e+300", "0"]),
        (pa.array([Decimal("7.00"), Decimal("0.01"), None], pa.decimal128(9, 2)), ["7.00", "0.01", "#2"]),
        (pa.array([Decimal(70), None, Decimal(80)], pa.decimal256(40, 0)), ["70", "#1", "80"]),
        (LATER, ["2024-05-06T07:08:09", "2024-05-06T07:08:09.500000", "#2"]),
        (LATER.cast(pa.timestamp("s"), safe=False), ["2024-05-06T07:08:09", "2024-05-06T07:08:09#1", "#2"]),
        (pa.array([10**18 + 1], pa.timestamp("ns")), ["2001-09-09T01:46:40.000000001"]),
        (pa.array([10**9], pa.timestamp("s", "UTC")), ["2001-09-09T01:46:40+00:00"]),
        (pa.array([10**9], pa.timestamp("s", "Europe/Berlin")), ["2001-09-09T03:46:40+02:00"]),
        (pa.array([10**9], pa.timestamp("s", "-03:30")), ["2001-09-08T22:16:40-03:30"]),
        (pa.array([2**62], pa.timestamp("ms")), [str(2**62)]),
        (pa.array([datetime.date(2024, 5, 6), None]), ["2024-05-06", "#1"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([2**64 - 1, None, 0], pa.uint64()), ["18446744073709551615", "#1", "0"]),
        (pa.array([-5, 5], pa.int8()), ["-5", "5"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_an_id_is_the_text_that_its_owner_would_write(tmp_path: Path, values: pa.Array, wanted: list[str]) -> None:
    path = written(tmp_path, values)
    assert ids(path) == wanted
    assert ids(path, id_column="id") == wanted


def test_half_precision_ids_are_short(tmp_path: Path) -> None:
    assert ids(written(tmp_path, pa.array(np.array([1.5, 0.1], np.float16)))) == ["1.5", "0.1"]


def test_ids_of_pandas_and_of_a_database(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": pd.Categorical(["b", "a", "b"]), "image": JPEGS})
    frame.to_parquet(tmp_path / "p.parquet")
    assert ids(tmp_path / "p.parquet") == ["b", "a", "b#2"]
    joined = pd.DataFrame({"id": [7, 8], "image": JPEGS[:2]}).merge(pd.DataFrame({"id": [7, 8, 9]}), how="right")
    joined["id"] = joined["id"].astype(float)
    joined.to_parquet(tmp_path / "j.parquet")
    assert ids(tmp_path / "j.parquet") == ["7", "8", "9"]
    made = f"select '{UUIDS[0]}'::uuid as id, unhex('{JPEGS[0].hex()}') as image, 'x'::enum('x', 'y') as kind"
    duckdb.sql(f"copy ({made}) to '{tmp_path}/d.parquet'")
    assert ids(tmp_path / "d.parquet") == [str(UUIDS[0])]
    assert ids(tmp_path / "d.parquet", id_column="kind") == ["x"]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"id": [1], "image_id": [2], "key": [3]}, "2"),
        ({"filename": ["f"], "uuid": ["u"]}, "u"),
        ({"ID": [1], "caption": ["c"]}, "1"),
        ({"Id": [1], "id": [2]}, "2"),
        ({"id": [[1, 2]], "path": ["p"]}, "p"),
        ({"caption": ["c"]}, "0"),
        ({"__index_level_0__": ["x"]}, "x"),
    ],
)
def test_of_several_columns_the_first_by_name_has_the_ids(
    tmp_path: Path, columns: dict[str, list[object]], wanted: str
) -> None:
    pq.write_table(pa.table({**columns, "image": JPEGS[:1]}), tmp_path / "a.parquet")
    assert ids(tmp_path / "a.parquet") == [wanted]


def test_a_plan_says_where_ids_come_from_and_what_is_not_used(tmp_path: Path) -> None:
    path = written(tmp_path, pa.array([1, 2]), key=pa.array(["a", "b"]))
    assert dict(open_source([str(path)]).corpus().notes)["ids"] == "column id (int64); not used: key (--id-column)"
    corpus = open_source([str(written(tmp_path, pa.array([[1], [2]])))]).corpus()
    assert dict(corpus.notes)["ids"].startswith("row numbers, as no column is called image_id, id, ")
    (warning,) = corpus.warnings
    assert warning.startswith("column 'id' is list<")
    with pytest.raises(SourceError, match=r"id_column = 'id' is not a column of text.*; the columns are id \(list<"):
        ids(path, id_column="id")
    with pytest.raises(SourceError, match=r"'nosuch' is not a column .* image \(binary\)"):
        ids(path, id_column="nosuch")


def test_ids_of_a_manifest_are_kept_too(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(JPEGS[0])
    table = pa.table({"uri": ["x.jpg", "./x.jpg"], "id": pa.array([7.0, 8.5])})
    pq.write_table(table, tmp_path / "m.parquet")
    assert ids(tmp_path / "m.parquet") == ["7", "8.5"]


IDS = st.lists(st.sampled_from(["a", "b", "a#2", "#1", "b#3", "", None]), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(IDS, st.integers(1, 4), st.booleans())
def test_ids_of_an_indexed_file_are_those_of_one_pass(
    tmp_path_factory: pytest.TempPathFactory, values: list[str | None], rows_per_group: int, as_manifest: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.parquet"
    (path.parent / "a.jpg").write_bytes(JPEGS[0])
    images = ["a.jpg" if as_manifest else JPEGS[0]] * len(values)
    table = pa.table({"id": pa.array(values, pa.string()), "uri" if as_manifest else "image": images})
    pq.write_table(table, path, row_group_size=rows_per_group)
    source = open_source([str(path)])
    shard = only(source)
    in_one_pass = [r.image_id for chunk in source.chunks(shard, 1) for r in chunk.records]
    assert len(set(in_one_pass)) == len(values)
    (indexed,) = source.index([shard])
    slices = [ChunkSelection(first, first + 2) for first in range(0, len(values), 2)]
    assert in_one_pass == [r.image_id for s in slices for c in source.chunks(indexed, 1, s) for r in c.records]


def test_each_id_of_an_indexed_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    add = UniqueIds.add
    monkeypatch.setattr(UniqueIds, "add", lambda self, name: hashed.append(name) or add(self, name))
    ids = [f"{n}.jpg" for n in range(60)]
    pq.write_table(pa.table({"id": ids, "image": JPEGS[:1] * 60}), tmp_path / "a.parquet", row_group_size=7)
    source = open_source([str(tmp_path)])
    (shard,) = source.index(source.shards())
    records = [r for n in range(20) for c in source.chunks(shard, 3, ChunkSelection(n, n + 1)) for r in c.records]
    assert [r.image_id for r in records] == [f"a.parquet/{name}" for name in ids]
    assert hashed == ids
