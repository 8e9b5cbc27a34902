"""Count the committed chunks of a plan, for reporters."""

from __future__ import annotations

import time

from segbatch.output.receipt import Receipt
from segbatch.planning.plan import Plan
from segbatch.protocols import Progress
from segbatch.records import ChunkId


class ProgressCounter:
    """Counts what a run commits, and corrects the number of chunks of a tar once its last chunk is committed.

    The rate is that since each worker has committed a chunk: a start, and the first chunk of a worker, take far longer
    than what follows. Until then the time left is bounded by the seconds that workers spent on the first chunks.

    Args:
        plan: The whole job.
        workers: Number of workers of the larger pool.
    """

    def __init__(self, plan: Plan, workers: int) -> None:
        self._begun, self._workers = time.monotonic(), workers
        self._worker_seconds = 0.0
        self._warm: tuple[float, int] | None = None  # when each worker had committed a chunk, and the records by then
        self._chunks = {s.id: plan.chunks(s) for s in plan.job.shards}
        self._is_estimate = any(s.records is None for s in plan.job.shards)
        self._done, self._total = plan.chunks_done(), sum(self._chunks.values())
        self._computed = self._records = self._errors = 0

    def add(self, receipt: Receipt) -> None:
        """Add a committed chunk."""
        self._computed += 1
        self._done += 1
        self._records += receipt.totals.records
        self._errors += receipt.totals.failed
        self._worker_seconds += sum(receipt.timings.values())
        if self._computed == self._workers:
            self._warm = time.monotonic(), self._records
        chunk = ChunkId.parse(receipt.filename)
        if chunk is not None:
            estimated = self._chunks[chunk.shard_id]
            known = chunk.index + 1 if chunk.last else max(estimated, chunk.index + 1)
            self._chunks[chunk.shard_id] = known
            self._total += known - estimated

    @property
    def progress(self) -> Progress:
        """A snapshot of the counts."""
        now = time.monotonic()
        left = self._total - self._done
        rate = seconds_left = None
        if self._warm is not None and self._computed > self._workers:
            since, records = self._warm
            rate = (self._records - records) / max(1e-6, now - since)
            seconds_left = left * (now - since) / (self._computed - self._workers)
        elif self._computed:
            seconds_left = left * self._worker_seconds / self._computed / self._workers
        return Progress(
            self._done,
            self._total,
            self._is_estimate,
            self._computed,
            self._records,
            self._errors,
            seconds=now - self._begun,
            records_per_second=rate,
            seconds_left=seconds_left,
            is_bound=rate is None,
        )
