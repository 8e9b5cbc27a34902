"""The plan as a Ray datasource: one row is one chunk, so Ray can neither split nor merge it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.context import DataContext
from ray.data.datasource import Datasource, ReadTask

from segbatch.interfaces import Source
from segbatch.runtime.failures import carried
from segbatch.runtime.guard import Attempts, Stopped, begin
from segbatch.runtime.metrics import count
from segbatch.runtime.planning import Piece
from segbatch.sources.io import shown_uri

# Beyond this many, reads are grouped: Ray keeps some hundred kilobytes for every task of a running dataset.
_MOST_TASKS = 1000


class ShardDatasource(Datasource):
    """Reads the pieces of a plan, each as a few one-row tables."""

    def __init__(self, source: Source, pieces: Sequence[Piece], chunk_size: int, attempts: Attempts) -> None:
        super().__init__()
        self._source, self._pieces, self._chunk_size, self._attempts = source, pieces, chunk_size, attempts

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task a piece, or a run of pieces if there are very many; ``parallelism`` is Ray's guess and not used."""
        per_task = -(-len(self._pieces) // _MOST_TASKS) or 1
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [
            ReadTask(_Read(self._source, self._pieces[i : i + per_task], self._chunk_size, self._attempts), metadata)
            for i in range(0, len(self._pieces), per_task)
        ]


class _Read:
    """What a read task runs. Ray retries one that kills its process for ever, so this counts."""

    def __init__(self, source: Source, pieces: Sequence[Piece], chunk_size: int, attempts: Attempts) -> None:
        self._source, self._pieces, self._chunk_size, self._attempts = source, pieces, chunk_size, attempts

    def __call__(self) -> Iterable[pa.Table]:
        return self._rows()

    def _rows(self) -> Iterator[pa.Table]:
        for piece in self._pieces:
            what = f"{shown_uri(piece.shard.uri)} at reading"
            with carried(what):
                key = f"read {piece.shard.id} {piece.first}"
                try:
                    begin(self._attempts, key, what)
                except Stopped:
                    return
                begun = time.perf_counter()
                for chunk in self._source.chunks(piece.shard, self._chunk_size, piece.skip(self._chunk_size)):
                    chunk.timings["read"] = time.perf_counter() - begun
                    count("segbatch_bytes", sum(len(r.data or b"") for r in chunk.records), direction="read")
                    yield chunk.to_row()
                    begun = time.perf_counter()
                self._attempts.end(key)
