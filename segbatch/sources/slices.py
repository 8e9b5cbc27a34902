"""Where the read tasks of a shard begin."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from segbatch.records import Shard

# Chunks of one read task, where the format can start in the middle of a shard without reading much again.
SLICE_CHUNKS = 8
GUESSED_RECORD_BYTES = 100_000
# Of a column, so much is read at once.
READ_BYTES = 4 * 2**20
_TAIL_BYTES = 64 * 2**10  # of a file, which pyarrow reads for the footer
# Of what a read task reads, so much may be what an earlier one has read.
_MAX_REREAD = 0.1


@dataclass(frozen=True)
class RowGroups:
    """Rows of each row group of a table, and the bytes of its footer, which every read task reads.

    Compressed, because the driver holds those of all shards.
    """

    packed: bytes
    footer_bytes: int

    @staticmethod
    def pack(rows: Iterable[int], footer_bytes: int) -> RowGroups:
        return RowGroups(zlib.compress(array("Q", rows).tobytes(), 6), footer_bytes)

    def __iter__(self) -> Iterator[int]:
        return iter(array("Q", zlib.decompress(self.packed)))


def even_starts(records: int, size: int) -> list[int]:
    """Return the first chunk of each read task of a shard that can be read from any record on."""
    return list(range(0, max(1, -(-records // size)), SLICE_CHUNKS))


def starts_by_group(groups: RowGroups, size: int, row_bytes: float, is_named: bool) -> list[int]:
    """Return the first chunk of each read task of a table, of which a row group is read from its first row on.

    A row group is divided only where that costs little, so that a large one is not read once per read task.

    Args:
        groups: Row groups of the table.
        size: Records per chunk.
        row_bytes: Mean bytes of a row, as stored.
        is_named: Whether the table only names its images, which are then most of what is read.
    """
    record_bytes = row_bytes + (GUESSED_RECORD_BYTES if is_named else 0)
    starts, chunk, begin = [0], SLICE_CHUNKS, 0
    for rows in groups:
        while chunk * size < begin + rows:
            before = chunk * size - begin
            read_again = max(before * row_bytes, min(rows * row_bytes, READ_BYTES)) if before else 0
            if (
                read_again + max(_TAIL_BYTES, groups.footer_bytes)
                <= _MAX_REREAD * (chunk - starts[-1]) * size * record_bytes
            ):
                starts.append(chunk)
                chunk += SLICE_CHUNKS
            else:
                chunk += 1
        begin += rows
    return starts


def row_bytes(shard: Shard) -> float:
    """Return the mean bytes of a row of a table, as stored."""
    return max(1, shard.size) / max(1, shard.records or 0)
