"""Parquet files with a column of encoded images, plain or as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from segbatch.errors import RecordFailure, SourceError
from segbatch.records import ALL_CHUNKS, Chunk, ChunkSelection, Record, Shard
from segbatch.sources.cells import cell_bytes
from segbatch.sources.chunking import ReadOptions, check_size, chunked, chunks_by_number, wanted_rows
from segbatch.sources.columns import Columns, choose
from segbatch.sources.fields import Fields, describe
from segbatch.sources.first_values import FirstValues
from segbatch.sources.ids import texts
from segbatch.sources.rows import ParquetRows, open_rows
from segbatch.storage.fetch import fetch
from segbatch.storage.files import Files, shown_uri, too_large
from segbatch.storage.hosts import Hosts, sampled
from segbatch.storage.uri import beside, uris_beside
from segbatch.text import escape_invalid_utf8


class Parquet:
    """Reads the rows of Parquet files; one row is one record.

    Which columns hold the images and the ids was decided when the job was planned, and is the shard's listing; a shard
    without one is looked into (``columns.choose``). Where the ``bytes`` of a struct are null, its ``path`` names the
    image, as a row of a manifest does. Error rows: MissingBytes, BadEncoding, RecordTooLarge, CorruptRowGroup, BadUri
    and those of ``Files.read`` for paths; and one row for a whole file: CorruptShard, WrongSchema, MissingObject,
    UnreadableObject.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection = ALL_CHUNKS) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Row groups that hold no record of a wanted chunk are not read."""
        check_size(size)
        try:
            rows = open_rows(self._files, shard.uri)
            try:
                columns = self._columns(shard, rows)
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
            hosts = Hosts(self._files, shard.uri, partial(self._sample, shard, total, columns.path))
            found = (
                self._record(shard, row, name, value, paths)
                for row, name, value in rows.rows(ranges, columns.image, columns.id)
            )
            records = fetch(hosts, found, self._options.max_record_bytes)
            yield from chunks_by_number(records, shard, total, size, wanted)

    def _columns(self, shard: Shard, rows: ParquetRows) -> Columns | None:
        """The columns to read, None of a file without rows. Raises ``SourceError`` if it lacks them."""
        if rows.records == 0:
            return None
        if shard.listing is None:
            with FirstValues(self._files, [shard.uri]) as values:
                return choose(values, self._options).columns
        columns = Columns.from_bytes(shard.listing)
        there = Fields.of(rows.schema).kinds
        missing = [path for path in (columns.image, columns.path, columns.id) if path is not None and path not in there]
        if missing:
            raise SourceError(
                f"no column {missing[0]!r}, which was there when the job was planned; run the job again; "
                f"the columns are {describe(rows.schema)}"
            )
        return columns

    def _sample(self, shard: Shard, total: int, column: str | None) -> Iterator[str]:
        with open_rows(self._files, shard.uri) as rows:
            for _, _, value in rows.rows(sampled(total), column, None) if column else ():
                if not isinstance(value, RecordFailure) and (path := texts(pa.array([value]))[0]):
                    yield from uris_beside(shard.uri, [path])

    def _record(
        self, shard: Shard, row: int, name: str | None, value: Any, paths: _Paths
    ) -> tuple[Record, str, int | None]:
        """For ``fetch``: a record with its bytes or an error, or the URI of its bytes."""
        record = Record(row_id(shard, row, name), shown_uri(shard.uri), row)
        try:
            if isinstance(value, RecordFailure):
                raise value
            data = cell_bytes(value) if value.is_valid else None
            path = "" if data else paths.of(row)
            if path:
                uri = beside(shard.uri, path)
                return replace(record, source=shown_uri(uri)), uri, None
            if data is None:
                raise RecordFailure("read", "MissingBytes", f"row {row} has no image bytes (null){paths.nor_path}")
            if data.size > self._options.max_record_bytes:
                raise too_large(f"row {row}", data.size, self._options.max_record_bytes)
        except RecordFailure as e:
            return record.failed(e.stage, e.type, e.message), "", None
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


def row_id(shard: Shard, row: int, name: str | None) -> str:
    """``shard/name``, or ``shard/row`` in a file without ids."""
    return f"{shard.name}/{row if name is None else escape_invalid_utf8(name)}"


def shard_error(shard: Shard, failure: RecordFailure) -> Record:
    """The one row that stands for a shard which cannot be read at all."""
    return Record(f"{shard.name}/#0", shown_uri(shard.uri), 0).failed(failure.stage, failure.type, failure.message)
