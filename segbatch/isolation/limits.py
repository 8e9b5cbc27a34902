"""Limits on the time and memory of a process that runs a stage."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from segbatch.config.job import JobSpec
from segbatch.crf.memory import total_memory
from segbatch.isolation.memory import MemoryLimit

# ``stall_seconds`` is for so many pixels in flight; more have proportionally more time. A batch of records is never
# larger, so only single images have more.
_PIXELS = 16_000_000
_DAY_SECONDS = 86_400.0
_RUNS = 4


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        stall_seconds: Time without a finished record, with up to 16 megapixels in flight.
        max_worker_bytes: Memory; None for a share of the machine's.
        workers: Workers on one machine, which share its memory.
    """

    stall_seconds: float
    max_worker_bytes: int | None = None
    workers: int = 1

    @staticmethod
    def of(spec: JobSpec, workers: int) -> Limits:
        return Limits(spec.stall_seconds, spec.max_worker_bytes, workers)

    def memory(self) -> MemoryLimit | None:
        """Return the limit on this machine, which may have more or less memory than others; None if unknown."""
        if self.max_worker_bytes is not None:
            return MemoryLimit(self.max_worker_bytes, self.max_worker_bytes)
        total = total_memory()
        return None if total is None else MemoryLimit.of(total, self.workers)

    def describe_memory(self, is_cluster: bool) -> str:
        """Return what a worker may hold, for a plan."""
        if is_cluster and self.max_worker_bytes is None:
            return "70 % of each machine for all of its workers"
        limit = self.memory()
        return "unknown on this platform" if limit is None else limit.describe(self.workers)

    def seconds(self, pixels: int) -> float:
        return min(self.stall_seconds * max(1.0, pixels / _PIXELS), threading.TIMEOUT_MAX)

    def chunk_seconds(self, records: int, max_pixels: int) -> float:
        """Return the longest time that a chunk may take, at least a day.

        Each record may take its time limit in a first run, in quarantine, alone, and in quarantine again. The day is
        for what has no limit: waiting for nodes, reading past the committed chunks of a large compressed shard.
        """
        return max(_DAY_SECONDS, _RUNS * records * self.seconds(max_pixels))
