"""The columns of an output, written once: writer, dataset card, verification and reference are derived from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segbatch.records import Record


@dataclass(frozen=True)
class Column:
    """One column of the result files.

    Attributes:
        name: Its name in Parquet.
        type: Its Arrow type.
        doc: What it holds, as Markdown, for the reference in README.md.
        value: Returns its value for a finished record.
        is_image: Whether its values are encoded images: viewers decode them, and they are not compressed again.
        is_optional: Whether only jobs with the setting of the same name have it.
    """

    name: str
    type: pa.DataType
    doc: str
    value: Callable[[Record], Any]
    is_image: bool = False
    is_optional: bool = False


CLASS_COUNT = pa.struct(
    [("class_id", pa.int16()), ("pixels", pa.int64()), ("fraction", pa.float32()), ("confidence", pa.float32())]
)
ERROR = pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])
COLUMNS = (
    Column("image_id", pa.string(), "unique in the corpus: shard and key", lambda r: r.image_id),
    Column("source", pa.string(), "the shard's URI", lambda r: r.source),
    Column("index", pa.int64(), "the record's place in the shard", lambda r: r.index),
    Column(
        "height",
        pa.int32(),
        "in pixels, after EXIF rotation; null where the image could not be decoded",
        lambda r: r.height,
    ),
    Column("width", pa.int32(), "in pixels, likewise", lambda r: r.width),
    Column(
        "mask",
        pa.binary(),
        "PNG of class ids at full size: palette, of more than 256 classes 16-bit gray; null in an error row",
        lambda r: r.mask,
        is_image=True,
    ),
    Column(
        "classes",
        pa.list_(CLASS_COUNT),
        "each class in the mask, with its pixels, their fraction of the image and their mean confidence; null in an "
        "error row",
        lambda r: None if r.mask is None else [vars(count) for count in r.classes],
    ),
    Column(
        "confidence",
        pa.float32(),
        "mean over the pixels of the network's probability of their class",
        lambda r: r.confidence,
    ),
    Column(
        "marginal",
        pa.float32(),
        "with `--marginal`: the same of the refiner's probability, which is near 1 after a CRF",
        lambda r: r.marginal,
        is_optional=True,
    ),
    Column(
        "error",
        ERROR,
        "why there is no mask; null in a row with a mask",
        lambda r: None if r.error is None else vars(r.error),
    ),
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


def columns(*, has_marginal: bool) -> list[Column]:
    """The columns of a job's result files; ``marginal`` is one of them for a job with ``JobSpec.marginal``."""
    return [column for column in COLUMNS if has_marginal or not column.is_optional]


def schema(*, has_marginal: bool) -> pa.Schema:
    """The Arrow schema of a job's result files."""
    return pa.schema([(column.name, column.type) for column in columns(has_marginal=has_marginal)])


def to_table(records: Sequence[Record], *, has_marginal: bool = False) -> pa.Table:
    """Finished records as rows of ``schema``, in their order."""
    chosen = columns(has_marginal=has_marginal)
    values = {column.name: [column.value(record) for record in records] for column in chosen}
    return pa.table(values, schema=schema(has_marginal=has_marginal))


def compression(written: pa.Schema) -> dict[str, str]:
    """The codec of each Parquet leaf column: none for encoded images, ZSTD for all others."""
    images = {column.name for column in COLUMNS if column.is_image}
    return {
        leaf: "NONE" if field.name in images else "ZSTD"
        for field in written
        for leaf in _leaves(field.name, field.type)
    }


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Parquet's names of the leaf columns of a column."""
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]


def reference() -> str:
    """The columns as a Markdown table, as README.md has it."""
    rows = [f"| `{column.name}` | {_type_name(column.type)} | {column.doc} |" for column in COLUMNS]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"struct of {', '.join(f'`{field.name}` {_type_name(field.type)}' for field in kind)}"
    return "float32" if pa.types.is_float32(kind) else str(kind)
