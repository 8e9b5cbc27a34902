"""The columns of the result: one row an input record."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from segbatch.records import Record

CLASS_COUNT = pa.struct(
    [
        ("class_id", pa.int16()),
        ("pixels", pa.int64()),
        ("fraction", pa.float32()),
        ("confidence", pa.float32()),
    ]
)
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("index", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", pa.binary()),
        ("classes", pa.list_(CLASS_COUNT)),
        ("confidence", pa.float32()),
        ("error", pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])),
    ]
)
CLASSES_SCHEMA = pa.schema(
    [
        ("class_id", pa.int16()),
        ("name", pa.string()),
        ("images", pa.int64()),
        ("pixels", pa.int64()),
        ("share", pa.float64()),
        ("confidence", pa.float64()),
    ]
)


_MARGINAL = pa.field("marginal", pa.float32())


def schema(*, has_marginal: bool) -> pa.Schema:
    """The columns of a job's result files: ``SCHEMA``, and ``marginal`` for a job with ``JobSpec.marginal``."""
    return SCHEMA.insert(SCHEMA.get_field_index("error"), _MARGINAL) if has_marginal else SCHEMA


def to_table(records: Sequence[Record], *, has_marginal: bool = False) -> pa.Table:
    """Finished records as rows of ``schema``, in their order."""
    return pa.table(
        {
            "image_id": [r.image_id for r in records],
            "source": [r.source for r in records],
            "index": [r.index for r in records],
            "height": [r.height for r in records],
            "width": [r.width for r in records],
            "mask": [r.mask for r in records],
            "classes": [None if r.mask is None else [vars(c) for c in r.classes] for r in records],
            "confidence": [r.confidence for r in records],
            **({"marginal": [r.marginal for r in records]} if has_marginal else {}),
            "error": [None if r.error is None else vars(r.error) for r in records],
        },
        schema=schema(has_marginal=has_marginal),
    )
