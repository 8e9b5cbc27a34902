"""The plan as a Ray datasource: one row is one chunk, so Ray can neither split nor merge it."""

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
from segbatch.planning.chunking import PIECE_CHUNKS, Piece
from segbatch.protocols import Source
from segbatch.ray_backend.prometheus import count
from segbatch.storage.files import shown_uri

# Beyond this many, reads are grouped: Ray keeps some hundred kilobytes for every task of a running dataset.
_MAX_TASKS = 1000
# Fewer pieces of one chunk than this have a task each: reading them in parallel counts for more.
_SMALL_TASKS = 64


class ShardDatasource(Datasource):
    """Reads the pieces of a plan, each as a few one-row tables."""

    def __init__(self, source: Source, pieces: Sequence[Piece], chunk_size: int, attempts: AttemptCounter) -> None:
        super().__init__()
        self._source, self._pieces, self._chunk_size, self._attempts = source, pieces, chunk_size, attempts

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelizm: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task a piece, or a run of pieces if there are very many; ``parallelizm`` is Ray's guess and not used."""
        runs = _runs(self._pieces)
        per_task = -(-len(runs) // _MAX_TASKS) or 1
        tasks = [list(itertools.chain(*runs[i : i + per_task])) for i in range(0, len(runs), per_task)]
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [ReadTask(_Read(self._source, pieces, self._chunk_size, self._attempts), metadata) for pieces in tasks]


def _runs(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces, those of one chunk in runs: a task for each of many small chunks costs as much as reading them."""
    single = sum(piece.stop == piece.first + 1 for piece in pieces)
    longest = max(1, min(PIECE_CHUNKS, single // _SMALL_TASKS))
    runs: list[list[Piece]] = []
    for piece in pieces:
        if runs and len(runs[-1]) < longest and all(p.stop == p.first + 1 for p in (piece, runs[-1][-1])):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


class _Read:
    """What a read task runs. Ray retries one that kills its process for ever, so this counts."""

    def __init__(self, source: Source, pieces: Sequence[Piece], chunk_size: int, attempts: AttemptCounter) -> None:
        self._source, self._pieces, self._chunk_size, self._attempts = source, pieces, chunk_size, attempts

    def __call__(self) -> Iterable[pa.Table]:
        return self._rows()

    def _rows(self) -> Iterator[pa.Table]:
        for piece in self._pieces:
            what = f"{shown_uri(piece.shard.uri)} at reading"
            with carried(what):
                key = f"read {piece.shard.id} {piece.first}"
                try:
                    begin_attempt(self._attempts, key, what)
                except Draining:
                    return
                begun = time.perf_counter()
                for chunk in self._source.chunks(piece.shard, self._chunk_size, piece.skip(self._chunk_size)):
                    chunk.timings["read"] = time.perf_counter() - begun
                    count("segbatch_bytes", sum(len(r.data or b"") for r in chunk.records), direction="read")
                    yield chunk.to_row()
                    begun = time.perf_counter()
                self._attempts.end(key)
