"""Count the committed chunks of a plan, for reporters."""

from __future__ import annotations

import time

from segbatch.output.receipt import Receipt
from segbatch.planning.plan import Plan
from segbatch.protocols import Progress
from segbatch.records import ChunkId


class ProgressCounter:
    """Counts what a run commits, and corrects the number of chunks of a tar once its last chunk is committed."""

    def __init__(self, plan: Plan) -> None:
        self._begun = time.monotonic()
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
        chunk = ChunkId.parse(receipt.filename)
        if chunk is not None:
            estimated = self._chunks[chunk.shard_id]
            known = chunk.index + 1 if chunk.last else max(estimated, chunk.index + 1)
            self._chunks[chunk.shard_id] = known
            self._total += known - estimated

    @property
    def progress(self) -> Progress:
        """A snapshot of the counts."""
        seconds = time.monotonic() - self._begun
        return Progress(
            self._done, self._total, self._is_estimate, self._computed, self._records, self._errors, seconds
        )
