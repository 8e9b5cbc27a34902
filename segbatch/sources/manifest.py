"""Manifests: a CSV, JSONL or Parquet file whose rows name images by URI."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Collection, Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from segbatch.chunk import Chunk, Record, Shard
from segbatch.errors import RecordFailure, SourceError
from segbatch.sources.chunking import ReadOptions, UniqueIds, check_size, chunks_by_number, clean, wanted_rows
from segbatch.sources.fetch import fetch
from segbatch.sources.io import Files, shown_uri
from segbatch.sources.listing import join
from segbatch.sources.parquet import describe, id_column, open_rows, row_id
from segbatch.sources.rows import is_text

_ID_NAMES = ("image_id", "id", "key", "__key__")


class Line(NamedTuple):
    """What one row says: where the image is, what it is called, or why that cannot be told."""

    uri: str | None
    id: str | None = None
    problem: RecordFailure | None = None


class Manifest:
    """Reads the images that the rows of a manifest name, several at once, in the order of the rows.

    URIs are absolute, or relative to the manifest's folder. Ids come from the column that ``id_column`` names,
    from ``image_id, id, key, __key__``, or else are the URIs as written. Error rows: MissingUri,
    BadManifestRow, CorruptRowGroup, MissingObject, UnreadableObject, RecordTooLarge.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, skip: Collection[int] = ()) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Images of chunks in ``skip`` are not read."""
        check_size(size)
        total = shard.records or 0
        records = fetch(self._files, self._wanted(shard, total, size, skip), self._options.max_record_bytes)
        return chunks_by_number(records, shard, total, size, skip)

    def _wanted(
        self, shard: Shard, total: int, size: int, skip: Collection[int]
    ) -> Iterator[tuple[Record, str, int | None]]:
        folder = shard.uri.rpartition("/")[0]
        ranges = [rows for _, rows, _ in wanted_rows(total, size, skip)]
        for row, name, line in numbered(self._files, shard.uri, self._options, ranges):
            record = Record(row_id(shard, row, name), shown_uri(shard.uri), row)
            if line.uri is None:
                problem = line.problem or RecordFailure(
                    "read", "MissingUri", f"row {row} has no value in column {self._options.uri_column!r}"
                )
                yield record.failed(problem.stage, problem.kind, problem.message), "", None
                continue
            absolute = "://" in line.uri or line.uri.startswith("/")
            uri = line.uri if absolute else join(folder, line.uri.removeprefix("./"))
            yield Record(record.image_id, shown_uri(uri), row), uri, None


def count(files: Files, uri: str, options: ReadOptions) -> int:
    """Rows of a manifest. Raises ``SourceError`` if it cannot be read, or has no column of URIs."""
    try:
        if is_parquet(uri):
            with open_rows(files, uri) as rows:
                _parquet_columns(uri, rows.schema, options)
                return rows.records
        return sum(1 for _ in _lines(files, uri, options))
    except RecordFailure as e:
        raise SourceError(e.message) from None
    except (OSError, EOFError, UnicodeError) as e:
        raise SourceError(f"{shown_uri(uri)}: the manifest cannot be read: {e}") from None


def numbered(files: Files, uri: str, options: ReadOptions, ranges: list[range]) -> Iterator[tuple[int, str, Line]]:
    """(row, id that is unique in the manifest, what it says) of the rows in the ascending ``ranges``."""
    stop = max((r.stop for r in ranges if len(r)), default=0)
    wanted = {row for r in ranges for row in r}
    if is_parquet(uri):
        yield from _parquet_lines(files, uri, options, ranges)
        return
    seen = UniqueIds()
    for row, line in enumerate(_lines(files, uri, options)):
        if row >= stop:
            return
        name = seen.unique(line.id or line.uri or f"#{row}", row)
        if row in wanted:
            yield row, name, line


def is_parquet(uri: str) -> bool:
    return uri.lower().endswith((".parquet", ".pq"))


def _lines(files: Files, uri: str, options: ReadOptions) -> Iterator[Line]:
    name = uri.lower().removesuffix(".gz")
    with files.open(uri) as raw:
        stream: BinaryIO = gzip.GzipFile(fileobj=raw) if uri.lower().endswith(".gz") else raw  # type: ignore[assignment]
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        yield from (
            _json_lines(text, options) if name.endswith((".jsonl", ".ndjson")) else _csv_lines(uri, text, options)
        )


def _csv_lines(uri: str, text: io.TextIOWrapper, options: ReadOptions) -> Iterator[Line]:
    tabs = uri.lower().removesuffix(".gz").endswith(".tsv")
    reader = csv.reader(text, delimiter="\t" if tabs else ",")
    header = next(reader, None) or []
    if options.uri_column not in header:
        raise SourceError(
            f"{shown_uri(uri)}: no column {options.uri_column!r}; the columns are {', '.join(header[:30]) or 'none'}; "
            "set the option uri_column"
        )
    at = header.index(options.uri_column)
    key = _id_index(uri, header, options)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield Line(None, None, RecordFailure("read", "BadManifestRow", f"line {reader.line_num}: {e}"))
            continue
        if row:
            uri_value = clean(row[at]).strip() if at < len(row) else ""
            yield Line(uri_value or None, row[key] if key is not None and key < len(row) and row[key] else None)


def _id_index(uri: str, header: list[str], options: ReadOptions) -> int | None:
    if options.id_column is not None and options.id_column not in header:
        raise SourceError(
            f"{shown_uri(uri)}: no column {options.id_column!r}; the columns are {', '.join(header[:30])}; "
            "set the option id_column"
        )
    name = options.id_column or next((n for n in _ID_NAMES if n in header), None)
    return None if name is None else header.index(name)


def _json_lines(text: io.TextIOWrapper, options: ReadOptions) -> Iterator[Line]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            yield Line(None, None, RecordFailure("read", "BadManifestRow", f"line {number} is not JSON: {e}"))
            continue
        if not isinstance(row, dict):
            what = f"line {number} is not an object with {options.uri_column!r}: {line.strip()[:80]}"
            yield Line(None, None, RecordFailure("read", "BadManifestRow", clean(what)))
            continue
        value = row.get(options.uri_column)
        names = [options.id_column] if options.id_column else _ID_NAMES
        key = next((row[n] for n in names if isinstance(row.get(n), str | int) and row[n] != ""), None)
        yield Line(clean(value).strip() or None if isinstance(value, str) else None, None if key is None else str(key))


def _parquet_columns(uri: str, schema: pa.Schema, options: ReadOptions) -> tuple[str, str | None]:
    column = options.uri_column
    if column not in schema.names or not is_text(schema.field(column).type):
        raise SourceError(
            f"{shown_uri(uri)}: no text column {column!r}; the columns are {describe(schema)}; "
            "set the option uri_column"
        )
    return column, id_column(schema, options, _ID_NAMES)


def _parquet_lines(
    files: Files, uri: str, options: ReadOptions, ranges: list[range]
) -> Iterator[tuple[int, str, Line]]:
    with open_rows(files, uri) as rows:
        column, key = _parquet_columns(uri, rows.schema, options)
        for row, name, value in rows.rows(ranges, column, key or column):
            if isinstance(value, RecordFailure):
                yield row, name or f"#{row}", Line(None, None, value)
                continue
            text = value.as_py()
            yield row, name or f"#{row}", Line((text or "").strip() or None)
