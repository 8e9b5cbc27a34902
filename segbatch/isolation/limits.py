"""Limits on time and memory of a process that runs a stage. Does not import Ray."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from segbatch.config.job import JobSpec

# What ``stall_seconds`` is meant for; more pixels in flight have proportionally more time. A window of records is at
# most this large, so only single images that are larger have more.
_PIXELS = 16_000_000
_DAY_SECONDS = 86_400.0
_RUNS = 4
_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Limits:
    """``stall_seconds`` for up to 16 megapixels in flight; ``memory`` in bytes that a process may hold (None: any)."""

    stall_seconds: float
    memory: int | None

    @staticmethod
    def of(spec: JobSpec) -> Limits:
        total = machine_memory()
        return Limits(spec.stall_seconds, spec.max_worker_bytes or (int(_MEMORY_SHARE * total) if total else None))

    def seconds(self, pixels: int) -> float:
        return min(self.stall_seconds * max(1.0, pixels / _PIXELS), threading.TIMEOUT_MAX)

    def chunk_seconds(self, records: int, max_pixels: int) -> float:
        """What these limits allow a chunk of ``records`` at most, and never less than a day.

        Each record may take its time, in a first run, whole in quarantine, alone, and whole again. What nobody limits,
        such as waiting for nodes or passing over the committed chunks of a large compressed shard, has the day.
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
    """Bytes of memory of this machine, or of the container if that has less; None where Linux does not tell."""
    if sys.platform != "linux":
        return None
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(found)
