"""Read the slices of a plan as a Ray datasource whose rows are chunks, which Ray can neither split nor merge."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.context import DataContext
from ray.data.datasource import Datasource, ReadTask

from segbatch.isolation import AttemptCounter, Draining, begin_attempt
from segbatch.isolation.failures import carried
from segbatch.packing import chunk_to_row
from segbatch.ray_backend.prometheus import count
from segbatch.records import ShardSlice
from segbatch.sources import Source
from segbatch.sources.slices import SLICE_CHUNKS
from segbatch.text import redact

# Ray 2.60 keeps some hundred kilobytes per task of a running dataset: more slices than this are grouped.
_MAX_TASKS = 1000
# Fewer slices of one chunk than this have a task each: reading them in parallel counts for more.
_SMALL_TASKS = 64


class ShardDatasource(Datasource):
    """Reads each slice as tables of one row, one per chunk."""

    def __init__(self, source: Source, slices: Sequence[ShardSlice], chunk_size: int, attempts: AttemptCounter) -> None:
        super().__init__()
        self._source, self._slices, self._chunk_size, self._attempts = source, slices, chunk_size, attempts

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Return one task per slice, or per group of slices if there are very many. ``parallelism`` is not used."""
        groups = _groups(self._slices)
        per_task = -(-len(groups) // _MAX_TASKS) or 1
        tasks = [list(itertools.chain(*groups[i : i + per_task])) for i in range(0, len(groups), per_task)]
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [ReadTask(_Read(self._source, slices, self._chunk_size, self._attempts), metadata) for slices in tasks]


def _groups(slices: Sequence[ShardSlice]) -> list[list[ShardSlice]]:
    """Group slices of one chunk: a task for each of many small chunks costs as much as reading them."""
    single = sum(part.is_one_chunk for part in slices)
    longest = max(1, min(SLICE_CHUNKS, single // _SMALL_TASKS))
    groups: list[list[ShardSlice]] = []
    for part in slices:
        if groups and len(groups[-1]) < longest and part.is_one_chunk and groups[-1][-1].is_one_chunk:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


class _Read:
    """What a read task runs. Counts its attempts, as Ray retries one that kills its process without limit."""

    def __init__(self, source: Source, slices: Sequence[ShardSlice], chunk_size: int, attempts: AttemptCounter) -> None:
        self._source, self._slices, self._chunk_size, self._attempts = source, slices, chunk_size, attempts

    def __call__(self) -> Iterable[pa.Table]:
        return self._rows()

    def _rows(self) -> Iterator[pa.Table]:
        for part in self._slices:
            what = f"{redact(part.shard.uri)} at reading"
            with carried(what):
                key = f"read {part.shard.id} {part.wanted.first}"
                try:
                    begin_attempt(self._attempts, key, what)
                except Draining:
                    return
                begun = time.perf_counter()
                for chunk in self._source.chunks(part.shard, self._chunk_size, part.wanted):
                    chunk.timings["read"] = time.perf_counter() - begun
                    count("segbatch_bytes", sum(len(r.data or b"") for r in chunk.records), direction="read")
                    yield chunk_to_row(chunk)
                    begun = time.perf_counter()
                self._attempts.end(key)
