"""Chunks as one-row Arrow tables, which Ray passes between stages, and as compressed bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from segbatch.records import Chunk, ChunkId, ClassCount, Preview, Record, RecordError, Scores
from segbatch.skipped import Skipped


def chunk_to_row(chunk: Chunk) -> pa.Table:
    """Return the chunk as a table of one row, which Ray can neither split nor merge."""
    names = list(chunk.timings)
    return pa.table(
        {
            "shard_id": pa.array([chunk.id.shard_id], pa.string()),
            "chunk_index": pa.array([chunk.id.index], pa.int64()),
            "last": pa.array([chunk.id.last], pa.bool_()),
            "records": pa.array([len(chunk.records)], pa.int64()),
            "timings": pa.array([[(name, chunk.timings[name]) for name in names]], pa.map_(pa.string(), pa.float64())),
            "skipped": pa.array([json.dumps(chunk.skipped.to_json())], pa.string()),
            "payload": _one_value(_to_ipc(_records_to_table(chunk.records))),
        }
    )


def chunk_from_row(row: pa.Table) -> Chunk:
    """Return the chunk of a row. Inverse of ``chunk_to_row``; copies the image bytes."""
    if row.num_rows != 1:
        raise ValueError(f"a chunk is one row, got {row.num_rows}; run the stage with batch_size=1")
    records = _table_to_records(_from_ipc(row.column("payload").combine_chunks()[0].as_buffer()))
    cid = ChunkId(
        row.column("shard_id")[0].as_py(),
        row.column("chunk_index")[0].as_py(),
        row.column("last")[0].as_py(),
    )
    skipped = Skipped.from_json(json.loads(row.column("skipped")[0].as_py()))
    return Chunk(cid, records, dict(row.column("timings")[0].as_py() or []), skipped)


def pack_chunk(chunk: Chunk) -> bytes:
    """Return the chunk as compressed bytes: 10 KB for 256 error rows."""
    return zlib.compress(_to_ipc(chunk_to_row(chunk)), 1)


def unpack_chunk(data: bytes) -> Chunk:
    """Return the chunk of compressed bytes. Inverse of ``pack_chunk``."""
    return chunk_from_row(_from_ipc(pa.py_buffer(zlib.decompress(data))))


def _to_ipc(table: pa.Table) -> pa.Buffer:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _from_ipc(data: pa.Buffer) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def _one_value(data: pa.Buffer) -> pa.Array:
    """Return a ``large_binary`` array of one value that shares the memory of ``data``."""
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


# float64, so that a chunk that was packed is committed with the same bytes as one that was not.
_CLASS_COUNT = pa.struct(
    [("class_id", pa.int16()), ("pixels", pa.int64()), ("fraction", pa.float64()), ("confidence", pa.float64())]
)
_RECORD = (
    ("image_id", pa.string()),
    ("source", pa.string()),
    ("index", pa.int64()),
    ("data", pa.large_binary()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("scores", pa.large_binary()),
    ("class_ids", pa.list_(pa.int16())),
    ("scores_shape", pa.list_(pa.int32())),
    ("stride", pa.int32()),
    ("error", pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])),
)
# Only in chunks that have them, because each column costs half a microsecond per record.
_RESULT = (
    ("mask", pa.large_binary()),
    ("classes", pa.list_(_CLASS_COUNT)),
    ("confidence", pa.float64()),
    ("marginal", pa.float64()),
)
_PREVIEW = (("photograph", pa.large_binary()), ("network", pa.large_binary()))


def _records_to_table(records: Sequence[Record]) -> pa.Table:
    scores = [r.scores for r in records]
    columns = {
        "image_id": [r.image_id for r in records],
        "source": [r.source for r in records],
        "index": [r.index for r in records],
        "data": [r.data for r in records],
        "height": [r.height for r in records],
        "width": [r.width for r in records],
        "scores": [None if s is None else np.ascontiguousarray(s.values, np.float16).tobytes() for s in scores],
        "class_ids": [None if s is None else s.class_ids.tolist() for s in scores],
        "scores_shape": [None if s is None else list(s.values.shape) for s in scores],
        "stride": [None if s is None else s.stride for s in scores],
        "error": [None if r.error is None else vars(r.error) for r in records],
    }
    fields = [*_RECORD]
    if any(r.mask is not None for r in records):
        fields += _RESULT
        columns |= {
            "mask": [r.mask for r in records],
            "classes": [[vars(c) for c in r.classes] for r in records],
            "confidence": [r.confidence for r in records],
            "marginal": [r.marginal for r in records],
        }
    previews = [r.preview for r in records]
    if any(previews):
        fields += _PREVIEW
        columns |= {name: [p and vars(p)[name] for p in previews] for name, _ in _PREVIEW}
    return pa.table(columns, schema=pa.schema(fields))


def _table_to_records(table: pa.Table) -> list[Record]:
    records = []
    for row in table.to_pylist():
        scores = None
        if row["scores"] is not None:
            values = np.frombuffer(row["scores"], np.float16).reshape(row["scores_shape"])
            scores = Scores(values, np.asarray(row["class_ids"], np.int16), row["height"], row["width"], row["stride"])
        error = RecordError(**row["error"]) if row["error"] is not None else None
        place = (row["image_id"], row["source"], row["index"])
        record = Record(*place, row["data"], scores, row["height"], row["width"], error)
        if row.get("mask") is not None:
            classes = tuple(ClassCount(**c) for c in row["classes"])
            result = {name: row[name] for name in ("mask", "confidence", "marginal")}
            record = replace(record, classes=classes, **result)
        if row.get("photograph") is not None:
            record = replace(record, preview=Preview(record.image_id, row["photograph"], row["network"]))
        records.append(record)
    return records
