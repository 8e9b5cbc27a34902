"""Run a stage for a worker: under limits, or in quarantine if the chunk has crashed a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from segbatch.causes import causes, lost_gpu
from segbatch.errors import Outage, PlatformError, SegbatchError
from segbatch.isolation.attempts import AttemptCounter, begin_attempt
from segbatch.isolation.bisection import quarantine
from segbatch.isolation.failures import failure
from segbatch.isolation.limits import Limits
from segbatch.isolation.watchdog import Watchdog, end_process
from segbatch.logs import event
from segbatch.protocols import Stage
from segbatch.records import Chunk
from segbatch.storage.failures import is_transient

logger = logging.getLogger(__name__)

# Starts in a row of one worker; a cause that persists then stops the job within a minute.
_MAX_STARTS = 4


def supervise(
    build: Callable[[], Stage], attempts: AttemptCounter, limits: Limits, worker: str
) -> Callable[[Chunk], Chunk]:
    """Build a stage in this worker, and return a function that runs it and isolates records that crash the process.

    The first attempt at a chunk runs in this process, which ends itself beyond ``limits``; Ray then starts the worker
    again, and the chunk comes back. Further attempts run in child processes, where a record that crashes them becomes
    an error row. The function raises ``SegbatchError`` for a chunk that keeps crashing its workers, and ``Draining``.

    Args:
        build: Makes the stage. Picklable, as each child process makes its own.
        attempts: Shared by all workers of the job.
        worker: Name of the stage, a space, and a name that outlives this process.

    Raises:
        SegbatchError: The stage cannot be built, see ``started``.
    """
    return _Supervised(build, attempts, limits, worker)


def started(
    build: Callable[[], Stage], attempts: AttemptCounter, worker: str, stop: Callable[[str], None] = end_process
) -> Stage:
    """Return ``build()`` at the start of ``worker``, whose name outlives its process.

    A transient failure (storage, memory, a node's GPU) ends the process by ``stop``, and Ray starts the worker again.

    Raises:
        SegbatchError: The failure is not transient, or ``_MAX_STARTS`` starts in a row failed.
    """
    stage = worker.partition(" ")[0]
    earlier, cause = attempts.start(worker)
    if earlier >= _MAX_STARTS:
        why = cause or "its process ended without an exception; see the workers' logs (memory, native libraries)"
        raise PlatformError(f"{stage} worker: {earlier} starts in a row failed: {why}")
    try:
        built = build()
    except Exception as e:  # Ray failures: the start of a worker may fail in any way
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
    """Whether every start would fail so: an error of segbatch without a transient cause."""
    return isinstance(error, SegbatchError) and not any(
        is_transient(cause) or isinstance(cause, MemoryError | Outage) for cause in causes(error)
    )


class _Supervised:
    """The stage of one worker. See ``supervise``."""

    def __init__(self, build: Callable[[], Stage], attempts: AttemptCounter, limits: Limits, worker: str) -> None:
        self._build, self._attempts, self._limits = build, attempts, limits
        self._stage = started(build, attempts, worker)
        self._watchdog = Watchdog(limits)

    def __call__(self, chunk: Chunk) -> Chunk:
        name, filename = self._stage.name, chunk.id.filename
        key = f"{name} {filename}"
        earlier, seconds = begin_attempt(self._attempts, key, f"{filename} at {name}, in quarantine too")
        if earlier:
            fields = {"chunk": filename, "stage": name, "attempts": earlier}
            event(logger, logging.WARNING, "chunk quarantined", **fields)
            done = quarantine(self._stage, self._build, chunk, self._limits, seconds >= self._limits.stall_seconds)
        else:
            done = self._watched(chunk)
        self._attempts.end(key)
        return done

    def _watched(self, chunk: Chunk) -> Chunk:
        try:
            with self._watchdog:
                return self._stage(chunk, self._watchdog)
        except Exception as e:  # Ray failures: raised again, unless the process has lost its GPU
            if lost_gpu(e):
                end_process(f"the GPU is lost to this process: {e}")
            raise
