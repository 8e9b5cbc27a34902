"""Runs a stage for a worker: with limits, and in quarantine if the chunk has killed a worker before. No Ray here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from segbatch.causes import causes, lost_gpu
from segbatch.errors import Outage, SegbatchError
from segbatch.isolation.bisection import quarantine
from segbatch.isolation.failures import failure
from segbatch.isolation.watch import Limits, Watchdog, end_process
from segbatch.logs import event
from segbatch.protocols import Stage
from segbatch.records import Chunk
from segbatch.storage.retry import is_transient

logger = logging.getLogger(__name__)

# Nodes that are taken away cost attempts too, so this is far more than a record needs to be found out.
_MOST_ATTEMPTS = 12
# Of one worker without being ready in between; one that meets its cause every time ends the job within a minute.
_MAX_STARTS = 4

Stop = Callable[[str], None]


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

    def start(self, worker: str) -> tuple[int, str]:
        """How often ``worker`` was started since it was last ready, and the cause noted last ("" if none). Counts one.

        Never ``Stopped``: a worker that is replaced while the job ends must be able to start.
        """
        ...

    def failed(self, worker: str, cause: str) -> None:
        """Note why the present start of ``worker`` failed."""
        ...

    def ready(self, worker: str) -> None:
        """``worker`` has started."""
        ...


def begin(attempts: Attempts, key: str, what: str) -> tuple[int, float]:
    """``attempts.begin(key)``. Raises ``SegbatchError`` that names ``what`` if it has cost too many workers."""
    earlier, seconds = attempts.begin(key)
    if earlier >= _MOST_ATTEMPTS:
        raise SegbatchError(
            f"{what}: {earlier} workers died over it; see their logs, and whether the machines have enough memory"
        )
    return earlier, seconds


def started(build: Callable[[], Stage], attempts: Attempts, worker: str, stop: Stop = end_process) -> Stage:
    """``build()`` at the start of ``worker``, whose name outlives its process.

    A failure that another start may not meet (a store that hiccups, memory that is short, a node's GPU) ends the
    process by ``stop``: Ray then starts the worker again. Raises ``SegbatchError`` with the cause for any other, and
    after ``_MAX_STARTS`` starts in a row.
    """
    stage = worker.partition(" ")[0]
    earlier, cause = attempts.start(worker)
    if earlier >= _MAX_STARTS:
        why = cause or "its process ended without an exception; see the workers' logs (memory, native libraries)"
        raise SegbatchError(f"{stage} worker: {earlier} starts in a row failed: {why}")
    try:
        built = build()
    except Exception as e:
        error = failure(e, f"{stage} worker: start {earlier + 1} of at most {_MAX_STARTS} failed")
        if _is_certain(e) or earlier + 1 >= _MAX_STARTS:
            raise error from e
        attempts.failed(worker, str(error))
        logger.error("%s worker: start %d failed", stage, earlier + 1, exc_info=e)
        stop(str(error))
        raise
    attempts.ready(worker)
    return built


def _is_certain(error: Exception) -> bool:
    """Whether every start will meet ``error``: segbatch says so, and nothing that may pass is behind it."""
    return isinstance(error, SegbatchError) and not any(
        is_transient(cause) or isinstance(cause, MemoryError | Outage) for cause in causes(error)
    )


class Guard:
    """A stage that outlives its records, in a worker that does not: Ray starts another, and the chunk comes back.

    The first time a chunk runs in this process, under a ``Watchdog``; afterwards in ``quarantine``.
    """

    def __init__(self, build: Callable[[], Stage], attempts: Attempts, limits: Limits, worker: str) -> None:
        self._build, self._attempts, self._limits = build, attempts, limits
        self._stage = started(build, attempts, worker)
        self._watchdog = Watchdog(limits)

    def __call__(self, chunk: Chunk) -> Chunk:
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

    def _watched(self, chunk: Chunk) -> Chunk:
        try:
            with self._watchdog:
                return self._stage(chunk, self._watchdog)
        except Exception as e:
            if lost_gpu(e):
                end_process(f"the GPU is lost to this process: {e}")
            raise
