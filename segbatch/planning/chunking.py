"""Chunks: how many records each has, and how many one read task reads."""

from __future__ import annotations

from segbatch.records import Shard

_MAX_CHUNK = 256
_CHUNK_BYTES = 64 * 2**20
_GUESSED_RECORD_BYTES = 100_000
# Most chunks of one read task, where a format can start in the middle of a shard.
MAX_SLICE_CHUNKS = 8


def chunks_of(records: int, chunk_size: int) -> int:
    """Chunks of a shard of ``records`` records; an empty shard is one empty chunk."""
    return max(1, -(-records // chunk_size))


def choose_chunk_size(shards: list[Shard], cores: float) -> int:
    """At most 256 records and about 64 MB, fewer if the corpus would else not keep every core busy."""
    size = sum(s.size for s in shards)
    records = sum(records_of(s) for s in shards)
    by_bytes = _CHUNK_BYTES * records // size if size else _MAX_CHUNK
    by_cores = -(-records // max(1, int(cores * 4)))
    return max(1, min(_MAX_CHUNK, by_bytes, max(8, by_cores)))


def records_of(shard: Shard) -> int:
    """Records of a shard, by its size where its format does not tell."""
    return shard.records if shard.records is not None else shard.size // _GUESSED_RECORD_BYTES + 1
