"""Parquet files with a column of encoded images, plain or as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from segbatch.chunk import Chunk, Record, Shard
from segbatch.errors import RecordFailure, SourceError
from segbatch.sources.chunking import ReadOptions, check_size, chunked, chunks_by_number, clean, wanted_rows
from segbatch.sources.io import Files, shard_failure, shown_uri, too_large
from segbatch.sources.rows import ParquetRows, is_bytes, is_id

_IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes", "image_bytes", "image_data", "data", "content")
_ID_NAMES = ("image_id", "id", "key", "__key__", "uri", "path")


class Parquet:
    """Reads the rows of Parquet files; one row is one record.

    The image column is binary, or a struct with a binary field ``bytes``: the one that is named, the only one,
    or the first by name (``image, jpg, …``). The id column is text or integers: ``image_id, id, key, __key__,
    uri, path``, the struct's ``path``, or else the row number. Error rows: MissingBytes, RecordTooLarge,
    CorruptRowGroup; and one row for a whole file: CorruptShard, WrongSchema, MissingObject, UnreadableObject.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, skip: Collection[int] = ()) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Row groups that hold no record of a wanted chunk are not read."""
        check_size(size)
        try:
            rows = open_rows(self._files, shard.uri)
            try:
                image, key = image_and_id(rows.schema, self._options)
            except SourceError as e:
                rows.__exit__()
                raise RecordFailure("read", "WrongSchema", str(e)) from None
        except RecordFailure as e:
            yield from chunked([shard_error(shard, e)], shard, size, skip)
            return
        with rows:
            total = rows.records
            wanted = [r for _, r, _ in wanted_rows(total, size, skip)]
            records = (
                (row, self._record(shard, row, name, value)) for row, name, value in rows.rows(wanted, image, key)
            )
            yield from chunks_by_number(records, shard, total, size, skip)

    def _record(self, shard: Shard, row: int, name: str | None, value: Any) -> Record:
        record = Record(row_id(shard, row, name), shown_uri(shard.uri), row)
        if isinstance(value, RecordFailure):
            return record.failed(value.stage, value.kind, value.message)
        if not value.is_valid:
            return record.failed("read", "MissingBytes", f"row {row} has no image bytes (null)")
        data = value.as_buffer()
        if data.size > self._options.max_record_bytes:
            failure = too_large(f"row {row}", data.size, self._options.max_record_bytes)
            return record.failed(failure.stage, failure.kind, failure.message)
        return replace(record, data=data.to_pybytes())


def open_rows(files: Files, uri: str) -> ParquetRows:
    """The file, open. Raises ``RecordFailure`` CorruptShard, MissingObject or UnreadableObject."""
    try:
        return ParquetRows(files, uri)
    except pa.ArrowException as e:
        text = " ".join(str(e).split())[:200]
        raise RecordFailure("read", "CorruptShard", f"{shown_uri(uri)}: not a whole Parquet file ({text})") from None
    except Exception as e:
        failure = shard_failure(uri, e)
        if type(e) is OSError and e.errno is None:  # pyarrow's own, for a footer that does not parse
            failure = RecordFailure("read", "CorruptShard", failure.message)
        raise failure from None


def image_and_id(schema: pa.Schema, options: ReadOptions) -> tuple[str, str | None]:
    """Paths of the image bytes and of the ids (None: use row numbers). Raises ``SourceError``."""
    candidates = [f.name for f in schema if is_bytes(f.type) or _is_struct(f.type)]
    name = options.image_column
    if name is not None and name not in candidates:
        what = (
            f"column {name!r} is {schema.field(name).type}, not image bytes"
            if name in schema.names
            else f"no column {name!r}"
        )
        raise SourceError(f"{what}; the columns are {describe(schema)}; set the option image_column")
    if name is None and not candidates:
        raise SourceError(
            f"no column holds image bytes (binary, or a struct with bytes); the columns are {describe(schema)}; "
            "set the option image_column, or format: manifest if a column holds URIs"
        )
    if name is None:
        name = next((n for n in _IMAGE_NAMES if n in candidates), candidates[0] if len(candidates) == 1 else None)
    if name is None:
        raise SourceError(
            f"several columns may hold the images: {', '.join(candidates)}; say which by the option image_column"
        )
    struct = _is_struct(schema.field(name).type)
    key = id_column(schema, options, _ID_NAMES)
    if key is None and struct:
        kind = schema.field(name).type
        key = f"{name}.path" if kind.get_field_index("path") >= 0 and is_id(kind.field("path").type) else None
    return f"{name}.bytes" if struct else name, key


def id_column(schema: pa.Schema, options: ReadOptions, names: tuple[str, ...]) -> str | None:
    """The column that the option names, or the first of ``names`` there is. Raises ``SourceError``."""
    wanted = options.id_column
    if wanted is None:
        return next((n for n in names if n in schema.names and is_id(schema.field(n).type)), None)
    if wanted not in schema.names or not is_id(schema.field(wanted).type):
        raise SourceError(
            f"id_column = {wanted!r} is not a column of text or integers; the columns are {describe(schema)}"
        )
    return wanted


def row_id(shard: Shard, row: int, name: str | None) -> str:
    """``shard/name``, or ``shard/row`` in a file without ids."""
    return f"{shard.name}/{row if name is None else clean(name)}"


def shard_error(shard: Shard, failure: RecordFailure) -> Record:
    """The one row that stands for a shard which cannot be read at all."""
    return Record(f"{shard.name}/#0", shown_uri(shard.uri), 0).failed(failure.stage, failure.kind, failure.message)


def describe(schema: pa.Schema) -> str:
    """``image (binary), label (int64)``: for messages."""
    shown = [f"{f.name} ({str(f.type)[:60]})" for f in schema][:30]
    return ", ".join(shown) + (", …" if len(schema) > 30 else "") or "none"


def _is_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type)
