"""Manifests: CSV, JSONL or Parquet files whose rows name images by URI."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import pyarrow as pa

from segbatch.errors import RecordFailure, SourceError
from segbatch.records import Chunk, ChunkSelection, Record, Shard
from segbatch.sources.chunking import chunks_by_number, wanted_rows
from segbatch.sources.columns import choose_id
from segbatch.sources.fields import Fields, describe
from segbatch.sources.formats import Listing, PlannedShards, ReadOptions
from segbatch.sources.ids import is_text, plain, texts
from segbatch.sources.rows import open_rows, renamed_ids, row_id
from segbatch.sources.slices import RowGroups, even_starts, row_bytes, starts_by_group
from segbatch.sources.text_rows import ID_NAMES, Line, TextIndex, TextRows
from segbatch.sources.unique_ids import RenamedIds
from segbatch.storage.fetch import fetch
from segbatch.storage.hosts import Hosts, sampled
from segbatch.storage.uri import beside, uris_beside
from segbatch.text import escape_invalid_utf8, redact, without_query

_PARQUET = (".parquet", ".pq")
_PLANNED_AT_ONCE = 8
_UNREADABLE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class TableIndex:
    """Layout of a Parquet manifest: its row groups, and ids that are not unique, once it is indexed."""

    groups: RowGroups
    renamed: RenamedIds | None = None


class Manifest:
    """Files whose rows name images by URI. Several images are read concurrently, in order of the rows.

    URIs are absolute, or relative to the folder of the manifest. Ids come from the column ``id_column``, or from
    ``image_id, id, key, __key__``, else they are the redacted URIs. Error rows: MissingUri, BadUri, BadManifestRow,
    CorruptRowGroup, MissingObject, UnreadableObject, RecordTooLarge.
    """

    name = "manifest"
    extensions: tuple[str, ...] = (
        *(".csv", ".tsv", ".jsonl", ".ndjson", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".ndjson.gz"),
        *_PARQUET,  # with --format manifest
    )
    options: tuple[str, ...] = ("id_column",)

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        """See ``Format.shards``. Reads text files once, and footers of Parquet files."""
        return self.plan([file.shard(self.name) for file in listing.files()], options)

    def plan(self, shards: Sequence[Shard], options: ReadOptions) -> PlannedShards:
        """Return ``shards`` as manifests. Raises ``SourceError`` if one cannot be read, or has no column of URIs."""
        with ThreadPoolExecutor(_PLANNED_AT_ONCE) as pool:
            planned = list(pool.map(lambda shard: _plan(shard, options), shards))
        notes = Counter(note for _, columns in planned for note in columns)
        return PlannedShards([shard for shard, _ in planned], notes)

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        """See ``Format.problems``: none, as planning has read the files."""
        return iter(())

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        """See ``Format.divide``."""
        return [shard]

    def starts(self, shard: Shard, size: int) -> list[int]:
        """See ``Format.starts``: compressed text and row groups are read from their beginning on."""
        if isinstance(shard.layout, TableIndex):
            return starts_by_group(shard.layout.groups, size, row_bytes(shard), is_named=True)
        if is_compressed(shard.uri):
            return starts_by_group(RowGroups.pack([shard.records or 0], 0), size, row_bytes(shard), is_named=True)
        return even_starts(shard.records or 0, size)

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        """See ``Format.index``: reads the ids of a Parquet file once. Planning has indexed text files."""
        if not isinstance(shard.layout, TableIndex):
            return shard
        try:
            with open_rows(options.files, shard.uri) as rows:
                column, key, _ = _parquet_columns(shard.uri, rows.schema, options)
        except RecordFailure:  # the manifest is gone, which reading it reports
            return shard
        renamed = renamed_ids(options.files, shard.uri, key or column)
        return replace(shard, layout=replace(shard.layout, renamed=renamed))

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        """See ``Format.chunks``. Images of other chunks are not read."""
        return _Reading(shard, options).chunks(size, wanted)


class _Reading:
    """One pass over the wanted rows of a manifest, and the images that they name."""

    def __init__(self, shard: Shard, options: ReadOptions) -> None:
        self._shard, self._options, self._total = shard, options, shard.records or 0

    def chunks(self, size: int, wanted: ChunkSelection) -> Iterator[Chunk]:
        hosts = Hosts(self._options.files, self._shard.uri, self._sample)
        ranges = [rows for _, rows, _ in wanted_rows(self._total, size, wanted)]
        records = fetch(hosts, self._records(ranges), self._options.max_record_bytes)
        return chunks_by_number(records, self._shard, self._total, size, wanted)

    def _sample(self) -> Iterator[str]:
        rows = self._rows(sampled(self._total))
        return uris_beside(self._shard.uri, (line.uri for _, _, line in rows if line.uri is not None))

    def _records(self, ranges: list[range]) -> Iterator[tuple[Record, str, int | None]]:
        """Yield, for ``fetch``, records without bytes and the URIs of their bytes, or error rows."""
        for row, name, line in self._rows(ranges):
            record = Record(row_id(self._shard, row, name), escape_invalid_utf8(redact(self._shard.uri)), row)
            try:
                uri = self._uri(row, line)
            except RecordFailure as e:
                yield record.failed(e.stage, e.type, e.message), "", None
                continue
            yield Record(record.image_id, escape_invalid_utf8(redact(uri)), row), uri, None

    def _uri(self, row: int, line: Line) -> str:
        if line.uri is not None:
            return beside(self._shard.uri, line.uri)
        raise line.problem or RecordFailure(
            "read", "MissingUri", f"row {row} has no value in column {self._options.uri_column!r}"
        )

    def _rows(self, ranges: list[range]) -> Iterator[tuple[int, str, Line]]:
        """Yield (row, unique id, content) of the rows in the ascending ``ranges``."""
        uri = self._shard.uri
        is_slice = sum(map(len, ranges)) < self._total and not is_compressed(uri)
        try:
            if is_parquet(uri):
                table = cast(TableIndex, self._shard.layout)
                yield from _parquet_lines(uri, self._options, ranges, table.renamed)
                return
            with TextRows(self._options.files, uri, self._options, is_slice=is_slice) as lines:
                index = cast(TextIndex | None, self._shard.layout)
                yield from lines.rows(ranges, index or lines.index())
        except RecordFailure as e:
            raise SourceError(f"{e.message}; it could be read when the job was planned: run the job again") from None
        except _UNREADABLE as e:
            raise SourceError(f"{redact(uri)}: the manifest can no longer be read: {e}; run the job again") from None


def _plan(shard: Shard, options: ReadOptions) -> tuple[Shard, list[tuple[str, str]]]:
    """Return a shard with its number of records and, of a text file, its index; and notes about its columns."""
    images = ("images", f"URIs in column {options.uri_column}")
    shard = replace(shard, format=Manifest.name)
    try:
        if is_parquet(shard.uri):
            with open_rows(options.files, shard.uri) as rows:
                _, _, ids = _parquet_columns(shard.uri, rows.schema, options)
                table = TableIndex(rows.groups)
                return replace(shard, records=rows.records, layout=table), [images, ("ids", ids)]
        with TextRows(options.files, shard.uri, options) as lines:
            index = lines.index()
            ids = f"column {lines.id_column or options.uri_column}"
            return replace(shard, records=index.records, layout=index), [images, ("ids", ids)]
    except RecordFailure as e:
        raise SourceError(e.message) from None
    except _UNREADABLE as e:
        raise SourceError(f"{redact(shard.uri)}: the manifest cannot be read: {e}") from None


def is_compressed(uri: str) -> bool:
    return without_query(uri).lower().endswith(".gz")


def is_parquet(uri: str) -> bool:
    return without_query(uri).lower().endswith(_PARQUET)


def _parquet_columns(uri: str, schema: pa.Schema, options: ReadOptions) -> tuple[str, str | None, str]:
    """Return the columns of URIs and of ids (None: the URIs are the ids), and a note about the ids."""
    column, fields = options.uri_column, Fields.of(schema)
    fields.refuse_repeated(column, "--uri-column")
    if column not in fields.kinds or not is_text(plain(fields.kinds[column])):
        raise SourceError(
            f"{redact(uri)}: no text column {column!r}; the columns are {describe(schema)}; set the option uri_column"
        )
    key, ids, _ = choose_id(fields, options, ID_NAMES, column)
    return column, key, ids or f"column {column}"


def _parquet_lines(
    uri: str, options: ReadOptions, ranges: list[range], renamed: RenamedIds | None
) -> Iterator[tuple[int, str, Line]]:
    with open_rows(options.files, uri) as rows:
        column, key, _ = _parquet_columns(uri, rows.schema, options)
        for row in rows.rows(ranges, column, key or column, renamed):
            name = row.id or f"#{row.number}"
            if row.failure is not None:
                yield row.number, name, Line(None, None, row.failure)
                continue
            yield row.number, name, Line(texts(pa.array([row.value]))[0].strip() or None)
