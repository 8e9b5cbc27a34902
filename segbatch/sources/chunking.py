"""Records to chunks: the counting that every format shares."""

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
    """Cut the records of a shard into chunks. For formats that learn the end only by reaching it.

    One record is read ahead, so that the chunk which ends the shard is known to, also when the number of records is a
    multiple of ``size``. No records give one empty chunk. ``records`` are read up to ``wanted.stop``.

    Args:
        take_skipped: Returns what was skipped since its last call. It counts for the chunk of the record before it.
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
    """(chunk index, its rows, whether it is the last) of the chunks in ``wanted``, for a known ``total``."""
    chunks = max(1, -(-total // size))
    for index in range(wanted.first, chunks if wanted.stop is None else min(chunks, wanted.stop)):
        if index in wanted:
            yield index, range(index * size, min(total, (index + 1) * size)), index == chunks - 1


def chunks_by_number(
    records: Iterable[tuple[int, Record]], shard: Shard, total: int, size: int, wanted: ChunkSelection
) -> Iterator[Chunk]:
    """Chunks of a shard whose ``total`` is known, from the numbered records of the wanted rows, in order.

    Raises ``SourceError`` if the records are not those of the wanted rows: the shard changed while in use.
    """
    rest = iter(records)
    for index, rows, last in wanted_rows(total, size, wanted):
        held, held_bytes = [], 0
        for row in rows:
            number, record = next(rest, (None, None))
            if number != row or record is None:
                raise SourceError(
                    f"{shard.uri}: has no record {row} although {total} were planned; "
                    "it changed since the job was planned: run the job again"
                )
            record, held_bytes = _within_limit(record, held_bytes)
            held.append(record)
        yield Chunk(ChunkId(shard.id, index, last), held)


def _within_limit(record: Record, held_bytes: int) -> tuple[Record, int]:
    """The record, as an error row if the chunk would hold too much with it, and the bytes the chunk then holds.

    Some kilobytes of a compressed archive or of a Parquet dictionary can stand for any number of large images.
    """
    total = held_bytes + len(record.data or b"")
    if total <= MAX_CHUNK_BYTES:
        return record, total
    message = (
        f"{len(record.data or b''):,} bytes, with which its chunk has {total:,}, more than {MAX_CHUNK_BYTES:,}; "
        "if such images are meant, choose a smaller chunk_size for a new output"
    )
    return record.failed("read", "ChunkTooLarge", message), held_bytes
