"""Rows of a Parquet file by number, with unique ids; a damaged row group does not affect the others."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segbatch.contents import recognized
from segbatch.errors import RecordFailure
from segbatch.records import Record, Shard
from segbatch.sources.fields import Fields
from segbatch.sources.first_bytes import first_bytes
from segbatch.sources.ids import texts
from segbatch.sources.slices import READ_BYTES, RowGroups
from segbatch.sources.unique_ids import RenamedIds, UniqueIds
from segbatch.storage.failures import brief
from segbatch.storage.files import Files, shard_failure, shown_name
from segbatch.storage.uri import folder_of
from segbatch.text import escape_invalid_utf8, redact

_FIRST_ROWS_BYTES = 256 * 2**10
_BATCH_BYTES = 16 * 2**20
_MAX_ROWS = 8  # a dictionary can expand one value to any number of rows, whatever size the footer declares
_ID_ROWS = 65536


class Row(NamedTuple):
    """A row of a Parquet file.

    Attributes:
        id: Unique in the file.
        value: A pyarrow scalar.
        failure: Why the value cannot be read.
    """

    number: int
    id: str | None
    value: Any
    failure: RecordFailure | None = None


class ParquetRows:
    """An open Parquet file, read in batches: holds a buffer and a batch, never a row group.

    Raises whatever pyarrow or the store raises if the footer cannot be read.

    Attributes:
        groups: Its row groups.
    """

    def __init__(self, files: Files, uri: str, buffer_bytes: int = READ_BYTES) -> None:
        self._folder = folder_of(uri)
        with ExitStack() as stack:
            stream = stack.enter_context(files.open(uri, read_ahead=False))
            opened = partial(
                pq.ParquetFile, stream, buffer_size=buffer_bytes, pre_buffer=False, page_checksum_verification=True
            )
            self._file = stack.enter_context(opened())
            metadata = self._file.metadata
            # All iterators of a file have the batch size of the last one: ids have a file of their own.
            self._id_file = stack.enter_context(opened(metadata=metadata))
            self.records: int = metadata.num_rows
            groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            if sum(groups) != self.records or min(groups, default=0) < 0:
                raise pa.ArrowInvalid(f"its footer declares {self.records} rows, its row groups {sum(groups)}")
            self.groups = RowGroups.pack(groups, metadata.serialized_size)
            self._opened = stack.pop_all()
        self.schema: pa.Schema = self._file.schema_arrow

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def rows(
        self, wanted: Sequence[range], column: str, id_column: str | None, renamed: RenamedIds | None = None
    ) -> Iterator[Row]:
        """Yield the rows in the ascending, disjoint ranges ``wanted``, each with its value of ``column``.

        Row groups without a wanted row are not read, except for their ids if ``renamed`` is None, because a later id
        may repeat one of them. A row that cannot be read has the failure CorruptRowGroup.

        Args:
            id_column: None for rows without ids.
            renamed: Ids of ``id_column`` that are not unique, see ``renamed_ids``.
        """
        unique = UniqueIds().unique if renamed is None else renamed.mapping()
        stop = max((r.stop for r in wanted if len(r)), default=0)
        for group, begin, end in self._groups():
            if begin >= stop:
                return
            first = bisect_right(wanted, begin, key=lambda r: r.stop)
            last = bisect_left(wanted, end, key=lambda r: r.start)
            parts = [range(max(r.start, begin), min(r.stop, end)) for r in wanted[first:last]]
            read = range(parts[0].start, parts[-1].stop) if parts else range(begin, begin)
            if renamed is None:
                read = range(begin, min(end, stop))
            names = iter(()) if id_column is None else self._names(group, begin, id_column, read)
            ids = ((row, unique(name, row)) for row, name in names)
            for row in self._values(group, column, begin, parts) if parts else ():
                yield row if id_column is None else row._replace(id=next(name for n, name in ids if n == row.number))
            deque(ids, maxlen=0)  # the ids of the remaining rows are taken, too

    def _groups(self) -> Iterator[tuple[int, int, int]]:
        """Yield (number, first row, row after the last) of each row group."""
        begin = 0
        for group, rows in enumerate(self.groups):
            yield group, begin, begin + rows
            begin += rows

    def renamed_ids(self, id_column: str) -> dict[int, str]:
        """Return the rows whose id an earlier row has, each with the id that it gets instead.

        Reads the ids once. Raises whatever pyarrow or the store raises if not all can be read.
        """
        seen, renamed = UniqueIds(), {}
        for group, begin, end in self._groups():
            for row, name in self._names_read(group, begin, id_column, range(begin, end)):
                if (unique := seen.unique(name, row)) != name:
                    renamed[row] = unique
        return renamed

    def _values(self, group: int, column: str, begin: int, parts: list[range]) -> Iterator[Row]:
        rows = itertools.chain.from_iterable(parts)
        row = next(rows, None)
        at = begin
        try:
            for batch in self._file.iter_batches(self._batch_rows(group), [group], [column]):
                values = _leaf(batch.column(0), column, self.schema)
                while row is not None and row < at + len(values):
                    yield Row(row, None, values[row - at])
                    row = next(rows, None)
                at += len(values)
                if row is None:
                    return
            reason = f"it has {at - begin} rows"
        except (pa.ArrowException, OSError) as e:
            reason = brief(e)
        failure = RecordFailure("read", "CorruptRowGroup", f"row group {group} cannot be read ({reason})")
        while row is not None:
            yield Row(row, None, None, failure)
            row = next(rows, None)

    def _batch_rows(self, group: int) -> int:
        """Return the rows per batch: at most 16 MB by the footer, so that every reading has the same batches."""
        # The size of all columns: pyarrow aborts the process at the size of one if the footer is damaged.
        metadata = self._file.metadata.row_group(group)
        size = max(metadata.total_byte_size, 1)
        return max(1, min(_MAX_ROWS, _BATCH_BYTES * max(metadata.num_rows, 1) // size))

    def _names(self, group: int, begin: int, id_column: str, rows: range) -> Iterator[tuple[int, str]]:
        """Yield (row, id that may not be unique); ``#row`` for rows without an id, or whose id cannot be read."""
        if not rows:
            return
        unread = rows.start
        with suppress(pa.ArrowException, OSError):  # reading the images of these rows fails as well, and reports it
            for row, name in self._names_read(group, begin, id_column, rows):
                unread = row + 1
                yield row, name
        for row in range(unread, rows.stop):
            yield row, f"#{row}"

    def _names_read(self, group: int, begin: int, id_column: str, rows: range) -> Iterator[tuple[int, str]]:
        for batch in self._id_file.iter_batches(_ID_ROWS, [group], [id_column]):
            values = _leaf(batch.column(0), id_column, self.schema)
            part = range(max(rows.start, begin), min(rows.stop, begin + len(values)))
            if part:
                for row, text in zip(part, texts(values.slice(part.start - begin, len(part))), strict=True):
                    yield row, shown_name(self._folder, text) or f"#{row}"
            begin += len(values)
            if begin >= rows.stop:
                return


def open_rows(files: Files, uri: str, *, first_rows: bool = False) -> ParquetRows:
    """Open a file. Raises ``RecordFailure`` CorruptShard, MissingObject or UnreadableObject.

    Args:
        first_rows: Whether only some first rows will be read.
    """
    try:
        return ParquetRows(files, uri, _FIRST_ROWS_BYTES if first_rows else READ_BYTES)
    except pa.ArrowException as e:
        other = recognized(first_bytes(files, uri), {"a Parquet file"})
        message = f"{redact(uri)}: not {f'Parquet, but {other}' if other else f'a whole Parquet file ({brief(e)})'}"
        raise RecordFailure("read", "CorruptShard", message) from None
    except Exception as e:  # storage translation: clients of stores have exceptions of their own
        failure = shard_failure(uri, e)
        if type(e) is OSError and e.errno is None:  # raised by pyarrow for an invalid footer
            failure = RecordFailure("read", "CorruptShard", failure.message)
        raise failure from None


def renamed_ids(files: Files, uri: str, column: str) -> RenamedIds | None:
    """Return the ids of a file that are not unique, or None if they cannot be read."""
    try:
        with open_rows(files, uri) as rows:
            return RenamedIds.pack(rows.renamed_ids(column)) if column in Fields.of(rows.schema).kinds else None
    except (RecordFailure, pa.ArrowException, OSError):
        return None


def _leaf(array: pa.Array, column: str, schema: pa.Schema) -> pa.Array:
    """Return the values of ``column``, which may be a field of a struct, such as ``image.bytes``."""
    below = column
    if column not in schema.names:
        top = max((name for name in schema.names if column.startswith(f"{name}.")), key=len)
        below = column[len(top) + 1 :]
    while below != column and below:
        name = max((f.name for f in array.type if f"{below}.".startswith(f"{f.name}.")), key=len)
        array, below = pc.struct_field(array, name), below[len(name) + 1 :]
    return array


def row_id(shard: Shard, row: int, name: str | None) -> str:
    """Return ``shard/name``, or ``shard/row`` for a file without ids."""
    return f"{shard.name}/{row if name is None else escape_invalid_utf8(name)}"


def shard_error(shard: Shard, failure: RecordFailure) -> Record:
    """Return the error row of a shard that cannot be read at all."""
    return Record(f"{shard.name}/#0", escape_invalid_utf8(redact(shard.uri)), 0).failed(
        failure.stage, failure.type, failure.message
    )
