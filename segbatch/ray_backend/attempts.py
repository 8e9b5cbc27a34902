"""Count the attempts of a job in a small actor that outlives its workers and ends with the job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segbatch.isolation import Draining
from segbatch.ray_backend.prometheus import count

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 20.0
_LOOK_SECONDS = 1.0


class _Counter:
    """The actor. It holds one entry per chunk that is in flight, or was in flight in a worker that crashed."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, float]] = {}
        self._starts: dict[str, tuple[int, str]] = {}
        self._stopped = False

    def begin(self, key: str) -> tuple[int, float] | None:
        if self._stopped:
            return None
        now = time.monotonic()
        count, last = self._begun.get(key, (0, now))
        self._begun[key] = (count + 1, now)
        return count, now - last

    def end(self, key: str) -> None:
        self._begun.pop(key, None)

    def start(self, worker: str) -> tuple[int, str]:
        earlier, cause = self._starts.get(worker, (0, ""))
        self._starts[worker] = (earlier + 1, cause)
        return earlier, cause

    def failed(self, worker: str, cause: str) -> None:
        self._starts[worker] = (self._starts.get(worker, (1, ""))[0], cause)

    def ready(self, worker: str) -> None:
        self._starts.pop(worker, None)

    def stop(self) -> None:
        self._stopped = True


class RayAttempts:
    """Implement ``isolation.AttemptCounter`` for workers on any node. Created by the driver; picklable.

    If the actor does not answer, or its node is lost, the attempt counts as the first: a poison record may then crash
    one more worker.
    """

    def __init__(self) -> None:
        # On the driver's node where possible: only the loss of the driver then loses the counts.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        counter: Any = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Counter)  # type: ignore[call-overload]
        self._counter = counter.remote()

    def begin(self, key: str) -> tuple[int, float]:
        try:
            begun = ray.get(self._counter.begin.remote(key), timeout=_ANSWER_SECONDS)
        except RayError:
            return 0, 0.0
        if begun is None:
            raise Draining
        earlier, seconds = begun
        if earlier:
            count("segbatch_chunk_retries", stage=key.split()[0])
        return earlier, seconds

    def end(self, key: str) -> None:
        self._counter.end.remote(key)

    def start(self, worker: str) -> tuple[int, str]:
        try:
            started: tuple[int, str] = ray.get(self._counter.start.remote(worker), timeout=_ANSWER_SECONDS)
        except RayError:
            return 0, ""
        return started

    def failed(self, worker: str, cause: str) -> None:
        """Wait until the actor has the cause: the process ends next."""
        with suppress(RayError):
            ray.get(self._counter.failed.remote(worker, cause), timeout=_ANSWER_SECONDS)

    def ready(self, worker: str) -> None:
        self._counter.ready.remote(worker)

    @contextmanager
    def stopping(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Poll ``should_stop`` once per second; once true, ``begin`` raises ``Draining`` in every worker."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_SECONDS):
                if should_stop():
                    logger.info("no new chunks are started")
                    self._counter.stop.remote()
                    return

        thread = threading.Thread(target=look, name="segbatch-stop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
