"""A chunk passes through a row without loss."""

import numpy as np
import pyarrow as pa
import pytest

from segbatch.packing import chunk_from_row, chunk_to_row, pack_chunk, unpack_chunk
from segbatch.records import Chunk, ChunkId, ClassCount, Preview, Record, RecordError, Scores


def chunk():
    scores = Scores(np.arange(12, dtype=np.float16).reshape(2, 2, 3), np.array([0, 15], np.int16), 7, 11, 4)
    records = [
        Record("a", "s3://b/a", 0, b"\xff\xd8" * 1000, scores, 7, 11),
        Record("b", "s3://b/b", 1, error=RecordError("decode", "EmptyImage", "no bytes")),
        Record("c", "s3://b/c", 2, b""),
    ]
    return Chunk(ChunkId("shard.00000000.000000", 5, True), records, {"read": 0.5, "segment": 1.25})


def test_row_round_trip():
    original = chunk()
    row = chunk_to_row(original)
    assert row.num_rows == 1
    back = chunk_from_row(row)
    assert back.id == original.id
    assert back.timings == original.timings
    for a, b in zip(original.records, back.records, strict=True):
        assert (a.image_id, a.source, a.index, a.data, a.height, a.width, a.error) == (
            b.image_id, b.source, b.index, b.data, b.height, b.width, b.error,
        )  # fmt: skip
    kept = back.records[0].scores
    np.testing.assert_array_equal(kept.values, original.records[0].scores.values)
    assert (kept.class_ids.tolist(), kept.height, kept.width, kept.stride) == ([0, 15], 7, 11, 4)


def test_finished_records_come_back_to_the_bit():
    classes = (ClassCount(7, 50, float(np.float32(1 / 3)), 0.1), ClassCount(0, 27, 1e-9, 1.0))
    finished = Record("a", "s", 0, height=7, width=11, mask=b"\x89PNG", classes=classes, confidence=0.1, marginal=1 / 3)
    failed = Record("b", "s", 1, b"data", height=7, width=11).failed("refine", "ValueError", "no")
    original = Chunk(chunk().id, [finished, failed], {"read": 0.1})
    assert unpack_chunk(pack_chunk(original)) == original == chunk_from_row(chunk_to_row(original))


@pytest.mark.parametrize("mask", [None, b"\x89PNG"])
def test_previews_stay_with_their_records(mask: bytes | None) -> None:
    sampled = Record("a", "s", 0, mask=mask, preview=Preview("a", b"RIFF", b"\x89PNG"))
    original = Chunk(chunk().id, [sampled, Record("b", "s", 1, mask=mask)])
    assert chunk_from_row(chunk_to_row(original)) == original


def test_empty_chunk_round_trip():
    back = chunk_from_row(chunk_to_row(Chunk(ChunkId("s.00000000.000000", 0, True), [])))
    assert back.records == []


def test_two_rows_are_refused():
    row = chunk_to_row(chunk())
    with pytest.raises(ValueError, match="a chunk is one row, got 2"):
        chunk_from_row(pa.concat_tables([row, row]))


def test_skipped_members_stay_with_their_chunk():
    original = chunk()
    original.skipped.add("members without a suffix", "a.tar/\udcff\n名")
    assert chunk_from_row(chunk_to_row(original)).skipped == original.skipped
    assert not chunk_from_row(chunk_to_row(chunk())).skipped
