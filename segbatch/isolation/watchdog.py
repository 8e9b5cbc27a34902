"""End the process of a worker that exceeds its limits."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Sequence

from segbatch.isolation.limits import Limits
from segbatch.isolation.memory import MemoryLimit, resident
from segbatch.protocols import InFlight

_MEMORY_CHECK_SECONDS = 0.1
# Fraction of the time limit. A deadline that changes by less is kept, since setting one starts a thread.
_SLACK = 0.01


class Watchdog(InFlight):
    """Ends this process if a stage, within ``with watchdog:``, finishes no record in time or holds too much memory.

    ``faulthandler`` keeps the time, in a thread that needs no GIL: a decoder that never releases the GIL is ended too,
    and the worker's log shows where it hung. The deadline is exact to a hundredth of the time limit.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._in_flight: dict[int, float] = {}
        self._active = False
        self._deadline = 0.0
        memory = limits.memory()
        if memory is not None and resident("self") is not None:
            threading.Thread(target=self._watch_memory, args=(memory,), daemon=True).start()

    def __enter__(self) -> Watchdog:
        self._in_flight.clear()
        self._active = True
        self._restart()
        return self

    def __exit__(self, *raised: object) -> None:
        self._active = False
        self._deadline = 0.0
        faulthandler.cancel_dump_traceback_later()

    def begin(self, stage: str, positions: Sequence[int], pixels: int) -> None:
        with self._lock:
            self._in_flight.update(dict.fromkeys(positions, pixels / max(1, len(positions))))
            self._restart()

    def end(self, positions: Sequence[int]) -> None:
        with self._lock:
            for position in positions:
                self._in_flight.pop(position, None)
            self._restart()

    def _restart(self) -> None:
        if self._active:
            seconds = self._limits.seconds(int(sum(self._in_flight.values())))
            deadline = time.monotonic() + seconds
            if abs(deadline - self._deadline) < _SLACK * seconds:
                return
            self._deadline = deadline
            # The descriptor, not sys.stderr: Ray puts an object there that has none.
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)

    def _watch_memory(self, limit: MemoryLimit) -> None:
        while True:
            time.sleep(_MEMORY_CHECK_SECONDS)
            held = resident("self") or 0
            if self._active and limit.is_exceeded_alone(held):
                end_process(f"the worker holds {held:,} bytes, more than max_worker_bytes = {limit.maximum:,}")
            if self._active and limit.is_exceeded_together(held, os.getppid()):
                end_process(
                    f"the worker holds {held:,} bytes, more than its share of {limit.share:,}, and the workers of this "
                    f"machine together more than {limit.maximum:,} (max_worker_bytes)"
                )


def end_process(why: str) -> None:
    """End this process at once, with the reason in its log; Ray starts another and the chunk comes back."""
    os.write(2, f"segbatch: {why}; the worker ends itself\n".encode())
    os._exit(1)
