"""Manifests: a CSV, JSONL or Parquet file whose rows name images by URI."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from segbatch.errors import RecordFailure, SourceError
from segbatch.records import ALL_CHUNKS, Chunk, ChunkSelection, Record, Shard
from segbatch.sources.chunking import ReadOptions, check_size, chunks_by_number, wanted_rows
from segbatch.sources.columns import choose_id
from segbatch.sources.fields import Fields, describe
from segbatch.sources.ids import is_text, plain, texts
from segbatch.sources.parquet import row_id
from segbatch.sources.rows import open_rows
from segbatch.sources.text_rows import ID_NAMES, Line, TextIndex, TextRows
from segbatch.storage.fetch import fetch
from segbatch.storage.files import Files, shown_uri
from segbatch.storage.hosts import Hosts, sampled
from segbatch.storage.uri import beside, uris_beside
from segbatch.text import without_query

_UNREADABLE = (OSError, EOFError, zlib.error)


class Manifest:
    """Reads the images that the rows of a manifest name, several at once, in the order of the rows.

    URIs are absolute, or relative to the manifest's folder. Ids come from the column that ``id_column`` names,
    from ``image_id, id, key, __key__``, or else are the URIs, redacted. Error rows: MissingUri, BadUri,
    BadManifestRow, CorruptRowGroup, MissingObject, UnreadableObject, RecordTooLarge.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection = ALL_CHUNKS) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Images of other chunks are not read."""
        check_size(size)
        total = shard.records or 0
        hosts = Hosts(self._files, shard.uri, partial(self._sample, shard, total))
        records = fetch(hosts, self._wanted(shard, total, size, wanted), self._options.max_record_bytes)
        return chunks_by_number(records, shard, total, size, wanted)

    def _sample(self, shard: Shard, total: int) -> Iterator[str]:
        rows = self._rows(shard, sampled(total))
        return uris_beside(shard.uri, (line.uri for _, _, line in rows if line.uri is not None))

    def _wanted(
        self, shard: Shard, total: int, size: int, wanted: ChunkSelection
    ) -> Iterator[tuple[Record, str, int | None]]:
        ranges = [rows for _, rows, _ in wanted_rows(total, size, wanted)]
        for row, name, line in self._rows(shard, ranges):
            record = Record(row_id(shard, row, name), shown_uri(shard.uri), row)
            try:
                uri = self._uri(shard, row, line)
            except RecordFailure as e:
                yield record.failed(e.stage, e.type, e.message), "", None
                continue
            yield Record(record.image_id, shown_uri(uri), row), uri, None

    def _uri(self, shard: Shard, row: int, line: Line) -> str:
        if line.uri is not None:
            return beside(shard.uri, line.uri)
        raise line.problem or RecordFailure(
            "read", "MissingUri", f"row {row} has no value in column {self._options.uri_column!r}"
        )

    def _rows(self, shard: Shard, ranges: list[range]) -> Iterator[tuple[int, str, Line]]:
        """(row, id that is unique in the manifest, what it says) of the rows in the ascending ``ranges``."""
        try:
            if is_parquet(shard.uri):
                yield from _parquet_lines(self._files, shard.uri, self._options, ranges)
                return
            with TextRows(self._files, shard.uri, self._options) as lines:
                planned = TextIndex.from_bytes(shard.listing) if shard.listing else lines.index()
                yield from lines.rows(ranges, planned)
        except RecordFailure as e:
            raise SourceError(f"{e.message}; it could be read when the job was planned: run the job again") from None
        except _UNREADABLE as e:
            raise SourceError(
                f"{shown_uri(shard.uri)}: the manifest can no longer be read: {e}; run the job again"
            ) from None


class Surveyed(NamedTuple):
    """Rows of a manifest, what ``Shard.listing`` keeps for its reading, and which columns are read, for a plan."""

    records: int
    listing: bytes | None
    images: str
    ids: str


def survey(files: Files, uri: str, options: ReadOptions) -> Surveyed:
    """What is to be known of a manifest beforehand. Raises ``SourceError`` if it cannot be read, or lacks a column."""
    images = f"URIs in column {options.uri_column}"
    try:
        if is_parquet(uri):
            with open_rows(files, uri) as rows:
                _, _, ids = _parquet_columns(uri, rows.schema, options)
                return Surveyed(rows.records, None, images, ids)
        with TextRows(files, uri, options) as lines:
            index = lines.index()
            ids = f"column {lines.id_column or options.uri_column}"
            return Surveyed(index.records, index.to_bytes(), images, ids)
    except RecordFailure as e:
        raise SourceError(e.message) from None
    except _UNREADABLE as e:
        raise SourceError(f"{shown_uri(uri)}: the manifest cannot be read: {e}") from None


def is_parquet(uri: str) -> bool:
    return without_query(uri).lower().endswith((".parquet", ".pq"))


def _parquet_columns(uri: str, schema: pa.Schema, options: ReadOptions) -> tuple[str, str | None, str]:
    """The columns of URIs and of ids, None if the URIs are the ids, and what a plan says of the ids."""
    column, fields = options.uri_column, Fields.of(schema)
    fields.refuse_twice(column, "--uri-column")
    if column not in fields.kinds or not is_text(plain(fields.kinds[column])):
        raise SourceError(
            f"{shown_uri(uri)}: no text column {column!r}; the columns are {describe(schema)}; "
            "set the option uri_column"
        )
    key, ids, _ = choose_id(fields, options, ID_NAMES, column)
    return column, key, ids or f"column {column}"


def _parquet_lines(
    files: Files, uri: str, options: ReadOptions, ranges: list[range]
) -> Iterator[tuple[int, str, Line]]:
    with open_rows(files, uri) as rows:
        column, key, _ = _parquet_columns(uri, rows.schema, options)
        for row, name, value in rows.rows(ranges, column, key or column):
            if isinstance(value, RecordFailure):
                yield row, name or f"#{row}", Line(None, None, value)
                continue
            yield row, name or f"#{row}", Line(texts(pa.array([value]))[0].strip() or None)
