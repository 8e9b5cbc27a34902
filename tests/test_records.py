"""Identities, and the way of a chunk through a row."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.records import Chunk, ChunkId, ClassCount, Record, RecordError, Scores, Shard


def chunk():
    scores = Scores(np.arange(12, dtype=np.float16).reshape(2, 2, 3), np.array([0, 15], np.int16), 7, 11, 4)
    records = [
        Record("a", "s3://b/a", 0, b"\xff\xd8" * 1000, scores, 7, 11),
        Record("b", "s3://b/b", 1, error=RecordError("decode", "EmptyImage", "no bytes")),
        Record("c", "s3://b/c", 2, b""),
    ]
    return Chunk(ChunkId("shard.00000000.000000", 5, True), records, {"read": 0.5, "segment": 1.25})


def test_row_round_trip():
    there = chunk()
    row = there.to_row()
    assert row.num_rows == 1
    back = Chunk.from_row(row)
    assert back.id == there.id
    assert back.timings == there.timings
    for a, b in zip(there.records, back.records, strict=True):
        assert (a.image_id, a.source, a.index, a.data, a.height, a.width, a.error) == (
            b.image_id, b.source, b.index, b.data, b.height, b.width, b.error,
        )  # fmt: skip
    kept = back.records[0].scores
    np.testing.assert_array_equal(kept.values, there.records[0].scores.values)
    assert (kept.class_ids.tolist(), kept.height, kept.width, kept.stride) == ([0, 15], 7, 11, 4)


def test_finished_records_come_back_to_the_bit():
    classes = (ClassCount(7, 50, float(np.float32(1 / 3)), 0.1), ClassCount(0, 27, 1e-9, 1.0))
    finished = Record("a", "s", 0, height=7, width=11, mask=b"\x89PNG", classes=classes, confidence=0.1, marginal=1 / 3)
    failed = Record("b", "s", 1, b"data", height=7, width=11).failed("refine", "ValueError", "no")
    there = Chunk(chunk().id, [finished, failed], {"read": 0.1})
    assert Chunk.unpack(there.pack()) == there == Chunk.from_row(there.to_row())


def test_empty_chunk_round_trip():
    back = Chunk.from_row(Chunk(ChunkId("s.00000000.000000", 0, True), []).to_row())
    assert back.records == []


def test_two_rows_are_refused():
    row = chunk().to_row()
    with pytest.raises(ValueError, match="a chunk is one row, got 2"):
        Chunk.from_row(pa.concat_tables([row, row]))


@given(st.text(min_size=1), st.text(), st.integers(0, 10**6), st.booleans())
def test_file_names_parse_back(name, version, index, last):
    shard = Shard("u", name, "webdataset", version)
    chunk_id = ChunkId(shard.id, index, last)
    assert ChunkId.parse(chunk_id.filename) == chunk_id
    assert "/" not in chunk_id.filename


@given(st.text(min_size=1), st.text(min_size=1))
def test_other_names_have_other_keys(a, b):
    keys = [Shard("u", n, "webdataset", "v").key for n in (a, b)]
    assert (keys[0] == keys[1]) == (a == b)


def test_a_new_version_has_another_id_and_the_same_key():
    a, b = (Shard("u", "x.tar", "webdataset", v) for v in ("1", "2"))
    assert a.key == b.key
    assert a.id != b.id


@pytest.mark.parametrize("name", ["part-0.parquet", "x.tar-00000.parquet", "", "_SUCCESS"])
def test_foreign_file_names_are_not_parsed(name):
    assert ChunkId.parse(name) is None


def test_what_is_skipped_goes_the_way_of_the_chunk():
    there = chunk()
    there.skipped.add("members without a suffix", "a.tar/\udcff\n名")
    assert Chunk.from_row(there.to_row()).skipped == there.skipped
    assert not Chunk.from_row(chunk().to_row()).skipped
