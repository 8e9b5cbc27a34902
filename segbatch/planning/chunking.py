"""Number of records per chunk."""

from __future__ import annotations

from segbatch.records import Shard
from segbatch.sources.slices import GUESSED_RECORD_BYTES

_MIN_CHUNK, _MAX_CHUNK = 4, 256
_CHUNK_BYTES = 64 * 2**20


def chunks_of(records: int, chunk_size: int) -> int:
    """Return the number of chunks of a shard. An empty shard has one empty chunk."""
    return max(1, -(-records // chunk_size))


def choose_chunk_size(shards: list[Shard], cores: float) -> int:
    """Return at most 256 records, about 64 MB, and fewer if the corpus has too few chunks for all cores."""
    size = sum(s.size for s in shards)
    records = sum(records_of(s) for s in shards)
    by_bytes = _CHUNK_BYTES * records // size if size else _MAX_CHUNK
    by_cores = -(-records // max(1, int(cores * 4)))
    return max(1, min(_MAX_CHUNK, by_bytes, max(_MIN_CHUNK, by_cores)))


def records_of(shard: Shard) -> int:
    """Return the number of records of a shard, estimated by its size if its format does not know it."""
    return shard.records if shard.records is not None else shard.size // GUESSED_RECORD_BYTES + 1
