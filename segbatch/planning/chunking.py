"""Chunks: how many records each has, and the pieces of a shard that are read at once."""

from __future__ import annotations

from dataclasses import dataclass

from segbatch.records import Shard

_LARGEST_CHUNK = 256
_CHUNK_BYTES = 64 * 2**20
_GUESSED_RECORD_BYTES = 100_000
# Reading is handed out in pieces of at most this many chunks, where a format can start in the middle.
PIECE_CHUNKS = 8


@dataclass(frozen=True)
class Piece:
    """Part of a shard for one read: chunks ``first`` to ``stop`` (None: to its end) except those in ``done``."""

    shard: Shard
    first: int
    stop: int | None
    done: frozenset[int]

    def skip(self, chunk_size: int) -> frozenset[int]:
        """Chunk indices that the source need not read."""
        if self.stop is None or self.shard.records is None:
            return self.done
        outside = set(range(chunks_of(self.shard.records, chunk_size))) - set(range(self.first, self.stop))
        return self.done | outside


def chunks_of(records: int, chunk_size: int) -> int:
    """Chunks of a shard of ``records`` records; an empty shard is one empty chunk."""
    return max(1, -(-records // chunk_size))


def choose_chunk_size(shards: list[Shard], cores: float) -> int:
    """At most 256 records and about 64 MB, fewer if the corpus would else not keep every core busy."""
    size = sum(s.size for s in shards)
    records = sum(records_of(s) for s in shards)
    by_bytes = _CHUNK_BYTES * records // size if size else _LARGEST_CHUNK
    by_cores = -(-records // max(1, int(cores * 4)))
    return max(1, min(_LARGEST_CHUNK, by_bytes, max(8, by_cores)))


def records_of(shard: Shard) -> int:
    """Records of a shard, by its size where its format does not tell."""
    return shard.records if shard.records is not None else shard.size // _GUESSED_RECORD_BYTES + 1
