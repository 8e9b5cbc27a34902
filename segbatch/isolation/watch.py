"""Limits on time and memory of a worker, kept by the worker itself. Knows nothing of Ray."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbatch.config.job import JobSpec
from segbatch.protocols import Watch

logger = logging.getLogger(__name__)

# What ``stall_seconds`` is meant for; more pixels in hand have proportionally more time. A window of records is at
# most this large, so only single images that are larger have more.
_PIXELS = 16_000_000
_DAY_SECONDS = 86_400.0
_RUNS = 4
_MEMORY_SHARE = 0.7
_MEMORY_CHECK_SECONDS = 0.1
# Of the time limit; a new deadline that differs by less is not set, since setting it starts a thread.
_SLACK = 0.01


@dataclass(frozen=True)
class Limits:
    """``stall_seconds`` for up to 16 megapixels in hand; ``memory`` in bytes that a process may hold (None: any)."""

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


class Watchdog(Watch):
    """Ends this process if a stage, within ``with watchdog:``, finishes no record in time or holds too much memory.

    The time is kept by ``faulthandler``, whose thread needs no GIL: a decoder that never gives it back is ended
    too, and where it hung is in the worker's log. It may be ended by a hundredth of the limit early or late.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._in_hand: dict[int, float] = {}
        self._active = False
        self._deadline = 0.0
        if limits.memory is not None and resident("self") is not None:
            threading.Thread(target=self._watch_memory, args=(limits.memory,), daemon=True).start()

    def __enter__(self) -> Watchdog:
        self._in_hand.clear()
        self._active = True
        self._restart()
        return self

    def __exit__(self, *raised: object) -> None:
        self._active = False
        self._deadline = 0.0
        faulthandler.cancel_dump_traceback_later()

    def begin(self, stage: str, positions: Sequence[int], pixels: int) -> None:
        with self._lock:
            self._in_hand.update(dict.fromkeys(positions, pixels / max(1, len(positions))))
            self._restart()

    def end(self, positions: Sequence[int]) -> None:
        with self._lock:
            for position in positions:
                self._in_hand.pop(position, None)
            self._restart()

    def _restart(self) -> None:
        if self._active:
            seconds = self._limits.seconds(int(sum(self._in_hand.values())))
            deadline = time.monotonic() + seconds
            if abs(deadline - self._deadline) < _SLACK * seconds:
                return
            self._deadline = deadline
            # The descriptor, not sys.stderr: Ray puts an object there that has none.
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)

    def _watch_memory(self, limit: int) -> None:
        while True:
            time.sleep(_MEMORY_CHECK_SECONDS)
            held = resident("self") or 0
            if self._active and held > limit:
                end_process(f"the worker holds {held / 2**30:.1f} GiB, more than max_worker_bytes = {limit:,}")


def end_process(why: str) -> None:
    """End this process at once, with the reason in its log; Ray starts another and the chunk comes back."""
    os.write(2, f"segbatch: {why}; the worker ends itself\n".encode())
    os._exit(1)


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
