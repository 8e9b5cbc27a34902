"""Records to chunks, the same for every format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from segbatch.errors import SourceError
from segbatch.records import Chunk, ChunkId, ChunkSelection, Record, Shard
from segbatch.skipped import Skipped

MAX_CHUNK_BYTES = 4 * 2**30


def chunked(
    records: Iterable[Record],
    shard: Shard,
    size: int,
    wanted: ChunkSelection,
    take_skipped: Callable[[], Skipped] = Skipped,
) -> Iterator[Chunk]:
    """Yield the records of a shard as chunks. For formats that learn the number of records only by reading.

    Reads one record ahead, so that the last chunk is known even if the number of records is a multiple of ``size``. A
    shard without records is one empty chunk. Stops reading at ``wanted.stop``.

    Args:
        take_skipped: Returns what was skipped since its last call, which counts for the chunk of the record before it.
    """
    held: list[Record] = []
    index = held_bytes = 0
    for record in records:
        if len(held) == size:
            chunk = Chunk(ChunkId(shard.id, index, False), held, skipped=take_skipped())
            if index in wanted:
                yield chunk
            held, index, held_bytes = [], index + 1, 0
            if index == wanted.stop:
                return
        record, held_bytes = _within_limit(record, held_bytes)
        held.append(record)
    if index in wanted:
        yield Chunk(ChunkId(shard.id, index, True), held, skipped=take_skipped())


def wanted_rows(total: int, size: int, wanted: ChunkSelection) -> Iterator[tuple[int, range, bool]]:
    """Yield (index, rows, whether it is the last) of the wanted chunks of a shard of ``total`` records."""
    chunks = max(1, -(-total // size))
    for index in range(wanted.first, chunks if wanted.stop is None else min(chunks, wanted.stop)):
        if index in wanted:
            yield index, range(index * size, min(total, (index + 1) * size)), index == chunks - 1


def chunks_by_number(
    records: Iterable[tuple[int, Record]], shard: Shard, total: int, size: int, wanted: ChunkSelection
) -> Iterator[Chunk]:
    """Yield the wanted chunks of a shard of ``total`` records.

    Args:
        records: (number, record) of all rows of the wanted chunks, in order.

    Raises:
        SourceError: ``records`` are others, because the shard has changed since it was planned.
    """
    remaining = iter(records)
    for index, rows, last in wanted_rows(total, size, wanted):
        held, held_bytes = [], 0
        for row in rows:
            number, record = next(remaining, (None, None))
            if number != row or record is None:
                raise SourceError(
                    f"{shard.uri}: has no record {row} although {total} were planned; "
                    "the shard has changed since; run the job again"
                )
            record, held_bytes = _within_limit(record, held_bytes)
            held.append(record)
        yield Chunk(ChunkId(shard.id, index, last), held)


def _within_limit(record: Record, held_bytes: int) -> tuple[Record, int]:
    """Return the record and the bytes of its chunk, or an error row if the chunk would be too large with it."""
    # Some kilobytes of a compressed archive or of a Parquet dictionary can expand to any number of large images.
    total = held_bytes + len(record.data or b"")
    if total <= MAX_CHUNK_BYTES:
        return record, total
    message = (
        f"{len(record.data or b''):,} bytes, with which its chunk has {total:,}, more than {MAX_CHUNK_BYTES:,}; "
        "if such images are meant, choose a smaller chunk_size for a new output"
    )
    return record.failed("read", "ChunkTooLarge", message), held_bytes
