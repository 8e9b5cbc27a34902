"""Runs a stage for a worker: with limits, and in quarantine if the chunk has killed a worker before. No Ray here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Protocol

from segbatch.chunk import Chunk
from segbatch.errors import SegbatchError
from segbatch.runtime.log import event
from segbatch.runtime.quarantine import quarantine
from segbatch.runtime.watch import Limits, Watchdog, end_process, lost_gpu
from segbatch.runtime.workers import Item, Items, Stage

logger = logging.getLogger(__name__)

# Nodes that are taken away cost attempts too, so this is far more than a record needs to be found out.
_MOST_ATTEMPTS = 12


class Stopped(Exception):
    """The job begins nothing more: what is in hand is finished, the rest is left for another time."""


class Attempts(Protocol):
    """Counts, where a worker's death does not reach, how often each piece of work was begun and not ended."""

    def begin(self, key: str) -> tuple[int, float]:
        """How often ``key`` was begun before and not ended, and the seconds since the last time. Begins it.

        Raises ``Stopped`` if the job begins nothing more.
        """
        ...

    def end(self, key: str) -> None:
        """``key`` is done, and forgotten."""
        ...


def begin(attempts: Attempts, key: str, what: str) -> tuple[int, float]:
    """``attempts.begin(key)``. Raises ``SegbatchError`` that names ``what`` if it has cost too many workers."""
    earlier, seconds = attempts.begin(key)
    if earlier >= _MOST_ATTEMPTS:
        raise SegbatchError(
            f"{what}: {earlier} workers died over it; see their logs, and whether the machines have enough memory"
        )
    return earlier, seconds


class Guard(Generic[Item]):
    """A stage that outlives its records, in a worker that does not: Ray starts another, and the chunk comes back.

    The first time a chunk runs in this process, under a ``Watchdog``; afterwards in ``quarantine``.
    """

    def __init__(self, build: Callable[[], Stage[Item]], attempts: Attempts, limits: Limits) -> None:
        self._build, self._attempts, self._limits = build, attempts, limits
        self._stage = build()
        self._watchdog = Watchdog(limits)

    def __call__(self, chunk: Chunk) -> Items[Item]:
        """Raises ``SegbatchError`` for a chunk that takes its workers with it even out of quarantine, ``Stopped``."""
        key = f"{self._stage.name} {chunk.id.filename}"
        what = f"{chunk.id.filename} at {self._stage.name}, in quarantine too"
        earlier, seconds = begin(self._attempts, key, what)
        if earlier:
            chunk_fields = {"chunk": chunk.id.filename, "stage": self._stage.name, "attempts": earlier}
            event(logger, logging.WARNING, "a worker died over a chunk; it runs in quarantine", **chunk_fields)
            outcome = quarantine(self._stage, self._build, chunk, self._limits, seconds >= self._limits.stall_seconds)
        else:
            outcome = self._watched(chunk)
        self._attempts.end(key)
        return outcome

    def _watched(self, chunk: Chunk) -> Items[Item]:
        try:
            with self._watchdog:
                return self._stage.run(chunk, self._watchdog)
        except Exception as e:
            if lost_gpu(e):
                end_process(f"the GPU is lost to this process: {e}")
            raise
