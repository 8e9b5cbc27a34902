"""Parquet files with a column of encoded images, plain or as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from segbatch.chunk import Chunk, Record, Shard
from segbatch.errors import RecordFailure, SourceError
from segbatch.sources.chunking import ReadOptions, check_size, chunked, chunks_by_number, clean, wanted_rows
from segbatch.sources.fetch import fetch
from segbatch.sources.hosts import Hosts, sampled
from segbatch.sources.io import Files, brief, shard_failure, shown_uri, too_large
from segbatch.sources.listing import beside
from segbatch.sources.rows import ParquetRows, is_bytes, is_id, is_text, texts

_IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes", "image_bytes", "image_data", "data", "content")
_ID_NAMES = ("image_id", "id", "key", "__key__", "uri", "path")


class Parquet:
    """Reads the rows of Parquet files; one row is one record.

    The image column is binary, or a struct with a binary field ``bytes``: the one that is named, the only one,
    or the first by name (``image, jpg, …``). Where a struct has no bytes, its ``path`` names the image, as a row of a
    manifest does. The id column is text or integers: ``image_id, id, key, __key__, uri, path``, the struct's ``path``,
    or else the row number. Error rows: MissingBytes, RecordTooLarge, CorruptRowGroup, and those of ``Files.read`` for
    paths; and one row for a whole file: CorruptShard, WrongSchema, MissingObject, UnreadableObject.
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
            column = path_beside(rows.schema, image)
            paths = _Paths(rows, wanted, column)
            hosts = Hosts(self._files, shard.uri, partial(self._sample, shard, total, column))
            found = (self._record(shard, row, name, value, paths) for row, name, value in rows.rows(wanted, image, key))
            records = fetch(hosts, found, self._options.max_record_bytes)
            yield from chunks_by_number(records, shard, total, size, skip)

    def _sample(self, shard: Shard, total: int, column: str | None) -> Iterator[str]:
        with open_rows(self._files, shard.uri) as rows:
            for _, _, value in rows.rows(sampled(total), column, None) if column else ():
                if not isinstance(value, RecordFailure) and (path := texts(pa.array([value]))[0]):
                    yield beside(shard.uri, path)

    def _record(
        self, shard: Shard, row: int, name: str | None, value: Any, paths: _Paths
    ) -> tuple[Record, str, int | None]:
        """For ``fetch``: a record with its bytes or an error, or the URI of its bytes."""
        record = Record(row_id(shard, row, name), shown_uri(shard.uri), row)
        try:
            if isinstance(value, RecordFailure):
                raise value
            data = value.as_buffer() if value.is_valid else None
            path = "" if data else paths.of(row)
            if path:
                uri = beside(shard.uri, path)
                return replace(record, source=shown_uri(uri)), uri, None
            if data is None:
                raise RecordFailure("read", "MissingBytes", f"row {row} has no image bytes (null){paths.nor_path}")
            if data.size > self._options.max_record_bytes:
                raise too_large(f"row {row}", data.size, self._options.max_record_bytes)
        except RecordFailure as e:
            return record.failed(e.stage, e.kind, e.message), "", None
        return replace(record, data=data.to_pybytes()), "", None


class _Paths:
    """The text beside image bytes, of rows in ascending order; read only where a row has no bytes."""

    def __init__(self, rows: ParquetRows, wanted: list[range], column: str | None) -> None:
        self._rows, self._wanted, self._column = rows, wanted, column
        self._values: Iterator[tuple[int, str | None, Any]] | None = None
        self.nor_path = "" if column is None else " and no path"

    def of(self, row: int) -> str:
        """The path of a row, or "". Raises ``RecordFailure`` if it cannot be read."""
        if self._column is None:
            return ""
        if self._values is None:
            ahead = [range(max(r.start, row), r.stop) for r in self._wanted if r.stop > row]
            self._values = self._rows.rows(ahead, self._column, None)
        value = next(value for at, _, value in self._values if at == row)
        if isinstance(value, RecordFailure):
            raise value
        return texts(pa.array([value]))[0]


def open_rows(files: Files, uri: str) -> ParquetRows:
    """The file, open. Raises ``RecordFailure`` CorruptShard, MissingObject or UnreadableObject."""
    try:
        return ParquetRows(files, uri)
    except pa.ArrowException as e:
        message = f"{shown_uri(uri)}: not a whole Parquet file ({brief(e)})"
        raise RecordFailure("read", "CorruptShard", message) from None
    except Exception as e:
        failure = shard_failure(uri, e)
        if type(e) is OSError and e.errno is None:  # pyarrow's own, for a footer that does not parse
            failure = RecordFailure("read", "CorruptShard", failure.message)
        raise failure from None


def image_and_id(schema: pa.Schema, options: ReadOptions) -> tuple[str, str | None]:
    """Paths of the image bytes and of the ids (None: use row numbers). Raises ``SourceError``."""
    candidates = [f.name for f in schema if holds_images(f.type)]
    name = options.image_column
    if name is not None and name not in candidates:
        what = (
            f"column {name!r} is {schema.field(name).type}, not image bytes (if paths or URIs, give it as uri_column)"
            if name in schema.names
            else f"no column {name!r}"
        )
        raise SourceError(f"{what}; the columns are {describe(schema)}; set the option image_column")
    if name is None and not candidates:
        raise SourceError(
            f"no column holds image bytes (binary, or a struct with bytes); the columns are {describe(schema)}; "
            "set the option image_column, or uri_column if a column holds paths or URIs of images"
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


def path_beside(schema: pa.Schema, image: str) -> str | None:
    """The path of the text that names an image whose bytes, at ``image``, are missing; None if there is none."""
    name = image.removesuffix(".bytes")
    return f"{name}.path" if image not in schema.names and _has_path(schema.field(name).type) else None


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold the bytes of images."""
    return is_bytes(kind) or _is_struct(kind)


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
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    # A writer that saw no bytes at all has given them the type null.
    inner = kind.field("bytes").type
    return is_bytes(inner) or (pa.types.is_null(inner) and _has_path(kind))


def _has_path(kind: pa.DataType) -> bool:
    return kind.get_field_index("path") >= 0 and is_text(kind.field("path").type)
