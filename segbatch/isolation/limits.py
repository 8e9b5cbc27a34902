"""Limits on the time and memory of a process that runs a stage."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from segbatch.config.job import JobSpec

# ``stall_seconds`` is for so many pixels in flight; more have proportionally more time. A batch of records is never
# larger, so only single images have more.
_PIXELS = 16_000_000
_DAY_SECONDS = 86_400.0
_RUNS = 4
_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        stall_seconds: Time without a finished record, with up to 16 megapixels in flight.
        memory: Bytes, or None for any number.
    """

    stall_seconds: float
    memory: int | None

    @staticmethod
    def of(spec: JobSpec) -> Limits:
        total = machine_memory()
        return Limits(spec.stall_seconds, spec.max_worker_bytes or (int(_MEMORY_SHARE * total) if total else None))

    def seconds(self, pixels: int) -> float:
        return min(self.stall_seconds * max(1.0, pixels / _PIXELS), threading.TIMEOUT_MAX)

    def chunk_seconds(self, records: int, max_pixels: int) -> float:
        """Return the longest time that a chunk may take, at least a day.

        Each record may take its time limit in a first run, in quarantine, alone, and in quarantine again. The day is
        for what has no limit: waiting for nodes, reading past the committed chunks of a large compressed shard.
        """
        return max(_DAY_SECONDS, _RUNS * records * self.seconds(max_pixels))


def resident(pid: int | str) -> int | None:
    """Bytes of memory that a process has for itself (Ray's shared object store not counted); None if unknown."""
    try:
        _, pages, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(pages) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def machine_memory() -> int | None:
    """Return the bytes of memory of this machine, or of the container if that has less; None if unknown."""
    if sys.platform != "linux":
        return None
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(found)
