"""Parquet files with a column of encoded images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import pyarrow as pa

from segbatch.contents import recognized
from segbatch.errors import RecordFailure, SourceError
from segbatch.records import Chunk, ChunkSelection, Record, Shard
from segbatch.sources.cells import cell_bytes
from segbatch.sources.chunking import chunked, chunks_by_number, wanted_rows
from segbatch.sources.columns import Columns, choose
from segbatch.sources.fields import Fields, describe
from segbatch.sources.first_bytes import mistaken
from segbatch.sources.first_values import FirstValues
from segbatch.sources.formats import Listing, PlannedShards, ReadOptions
from segbatch.sources.ids import texts
from segbatch.sources.parquet_plan import ParquetIndex, no_images, plan_tables
from segbatch.sources.rows import ParquetRows, Row, open_rows, renamed_ids, row_id, shard_error
from segbatch.sources.slices import row_bytes, starts_by_group
from segbatch.storage.fetch import fetch
from segbatch.storage.files import too_large
from segbatch.storage.hosts import Hosts, sampled
from segbatch.storage.uri import beside, uris_beside
from segbatch.text import escape_invalid_utf8, redact


class Parquet:
    """Parquet files with encoded images, also as Hugging Face writes them. One row is one record.

    The columns are chosen while planning (``parquet_plan``) and are part of the layout; those of a shard without a
    layout are chosen while reading. If the ``bytes`` of a struct are null, its ``path`` names the image, as a row of a
    manifest does.

    Error rows: MissingBytes, BadEncoding, RecordTooLarge, CorruptRowGroup, BadUri and those of ``Files.read`` for
    paths. One row for a whole file: CorruptShard, WrongSchema, MissingObject, UnreadableObject.
    """

    name = "parquet"
    extensions: tuple[str, ...] = (".parquet", ".pq")
    options: tuple[str, ...] = ("image_column", "id_column")

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        """See ``Format.shards``. Tables without images that have a column of URIs become manifests."""
        return plan_tables([file.shard(self.name) for file in listing.files()], options)

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        """See ``Format.problems``: other kinds of files, and no image in the chosen column."""
        problem = mistaken(options.files, shards, "Parquet", lambda _, head: recognized(head, {"a Parquet file"}))
        if problem is None and options.image_column is None:
            problem = no_images(shards)
        if problem is not None:
            yield problem

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        """See ``Format.divide``."""
        return [shard]

    def starts(self, shard: Shard, size: int) -> list[int]:
        """See ``Format.starts``: where a row group begins, if images are in the table."""
        layout = cast(ParquetIndex | None, shard.layout)
        if layout is None:
            return [0]
        return starts_by_group(layout.groups, size, row_bytes(shard), layout.has_paths)

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        """See ``Format.index``: reads the ids once."""
        layout = cast(ParquetIndex | None, shard.layout)
        if layout is None or layout.columns.id is None:
            return shard
        renamed = renamed_ids(options.files, shard.uri, layout.columns.id)
        return replace(shard, layout=replace(layout, renamed=renamed))

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        """See ``Format.chunks``. Row groups without a record of a wanted chunk are not read."""
        return _Reading(shard, options).chunks(size, wanted)


class _Reading:
    """One pass over the wanted rows of a file."""

    def __init__(self, shard: Shard, options: ReadOptions) -> None:
        self._shard, self._options = shard, options
        self._layout = cast(ParquetIndex | None, shard.layout)

    def chunks(self, size: int, wanted: ChunkSelection) -> Iterator[Chunk]:
        shard = self._shard
        try:
            rows = open_rows(self._options.files, shard.uri)
            try:
                columns = self._columns(rows)
            except SourceError as e:
                rows.__exit__()
                raise RecordFailure("read", "WrongSchema", str(e)) from None
        except RecordFailure as e:
            yield from chunked([shard_error(shard, e)], shard, size, wanted)
            return
        with rows:
            total = rows.records
            if columns is None:
                yield from chunked([], shard, size, wanted)
                return
            ranges = [numbers for _, numbers, _ in wanted_rows(total, size, wanted)]
            paths = _Paths(rows, ranges, columns.path)
            hosts = Hosts(self._options.files, shard.uri, partial(self._sample, total, columns.path))
            renamed = self._layout.renamed if self._layout is not None else None
            values = (self._record(row, paths) for row in rows.rows(ranges, columns.image, columns.id, renamed))
            records = fetch(hosts, values, self._options.max_record_bytes)
            yield from chunks_by_number(records, shard, total, size, wanted)

    def _columns(self, rows: ParquetRows) -> Columns | None:
        """Return the columns to read, None for a file without rows. Raises ``SourceError`` if one is missing."""
        if rows.records == 0:
            return None
        if self._layout is None:
            with FirstValues(self._options.files, [self._shard.uri]) as values:
                return choose(values, self._options).columns
        columns = self._layout.columns
        present = Fields.of(rows.schema).kinds
        planned = (columns.image, columns.path, columns.id)
        missing = [path for path in planned if path is not None and path not in present]
        if missing:
            raise SourceError(
                f"no column {missing[0]!r}, which the file had when the job was planned; run the job again; "
                f"the columns are {describe(rows.schema)}"
            )
        return columns

    def _sample(self, total: int, column: str | None) -> Iterator[str]:
        with open_rows(self._options.files, self._shard.uri) as rows:
            for row in rows.rows(sampled(total), column, None) if column else ():
                if row.failure is None and (path := texts(pa.array([row.value]))[0]):
                    yield from uris_beside(self._shard.uri, [path])

    def _record(self, row: Row, paths: _Paths) -> tuple[Record, str, int | None]:
        """Return, for ``fetch``, a record with its bytes, with an error, or with the URI of its bytes."""
        number = row.number
        record = Record(row_id(self._shard, number, row.id), escape_invalid_utf8(redact(self._shard.uri)), number)
        try:
            if row.failure is not None:
                raise row.failure
            data = cell_bytes(row.value) if row.value.is_valid else None
            path = "" if data else paths.of(number)
            if path:
                uri = beside(self._shard.uri, path)
                return replace(record, source=escape_invalid_utf8(redact(uri))), uri, None
            if data is None:
                raise RecordFailure("read", "MissingBytes", f"row {number} has no image bytes (null){paths.nor_path}")
            if data.size > self._options.max_record_bytes:
                raise too_large(f"row {number}", data.size, self._options.max_record_bytes)
        except RecordFailure as e:
            return record.failed(e.stage, e.type, e.message), "", None
        return replace(record, data=data.to_pybytes()), "", None


class _Paths:
    """Paths beside image bytes, of rows in ascending order. Reads them at the first row without bytes."""

    def __init__(self, rows: ParquetRows, wanted: list[range], column: str | None) -> None:
        self._rows, self._wanted, self._column = rows, wanted, column
        self._values: Iterator[Row] | None = None
        self.nor_path = "" if column is None else " and no path"

    def of(self, row: int) -> str:
        """Return the path of a row, or "". Raises ``RecordFailure`` if it cannot be read."""
        if self._column is None:
            return ""
        if self._values is None:
            ahead = [range(max(r.start, row), r.stop) for r in self._wanted if r.stop > row]
            self._values = self._rows.rows(ahead, self._column, None)
        path = next(value for value in self._values if value.number == row)
        if path.failure is not None:
            raise path.failure
        return texts(pa.array([path.value]))[0]
