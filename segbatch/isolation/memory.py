"""How much memory a worker may hold, and how much it holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from segbatch.processes import children_by_parent

_FRACTION = 0.7  # of the machine's memory, for all workers together
# A worker with a network holds half of this before its first record; a smaller limit would be no record's fault.
_MIN_SHARE = 2**30


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that a worker may hold.

    It may exceed ``share`` while all workers of its machine together hold at most ``maximum``: one huge image may take
    what the others leave.

    Attributes:
        share: What it may hold in any case.
        maximum: What neither it nor all workers of its machine together may exceed.
    """

    share: int
    maximum: int

    @staticmethod
    def of(total: int, workers: int) -> MemoryLimit:
        """Return the default on a machine, or in a container, with ``total`` bytes for so many workers."""
        maximum = int(_FRACTION * total)
        return MemoryLimit(min(maximum, max(_MIN_SHARE, maximum // workers)), maximum)

    def is_exceeded_alone(self, held: int) -> bool:
        """Return whether a worker that holds ``held`` bytes exceeds the limit, whatever other workers hold."""
        return held > self.maximum

    def is_exceeded_together(self, held: int, others_parent: int, others_bytes: int = 0) -> bool:
        """Return whether it has more than its share while all workers together hold too much.

        Args:
            held: Bytes of the worker.
            others_parent: Process id of the parent of the workers of this machine.
            others_bytes: Bytes of a process that works for them and has another parent.
        """
        return held > self.share and held_by_children(others_parent) + others_bytes > self.maximum

    def describe(self, workers: int) -> str:
        """Return the limit in GiB, for a plan."""
        if self.share == self.maximum:
            return f"at most {_gib(self.maximum)} for each worker"
        return (
            f"{_gib(self.share)} for each of {workers} workers, more while all of them hold less than "
            f"{_gib(self.maximum)}"
        )


def resident(pid: int | str) -> int | None:
    """Return the bytes of memory that a process has for itself (without Ray's shared object store); None if unknown."""
    try:
        _, pages, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(pages) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def held_by_children(parent: int) -> int:
    """Return the bytes of memory that the children of a process have for themselves."""
    return sum(resident(child) or 0 for child in children_by_parent().get(parent, ()))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
