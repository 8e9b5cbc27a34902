"""Counts attempts in a small actor of the job's own, which dies with the job and with no worker."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segbatch.runtime.metrics import count

_ANSWER_SECONDS = 20.0


class _Counter:
    """Holds a number for each chunk that is in hand somewhere, or was in a worker that died: never for those done."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, float]] = {}

    def begin(self, key: str) -> tuple[int, float]:
        now = time.monotonic()
        count, last = self._begun.get(key, (0, now))
        self._begun[key] = (count + 1, now)
        return count, now - last

    def end(self, key: str) -> None:
        self._begun.pop(key, None)


class RayAttempts:
    """Implements ``guard.Attempts``. Made by the driver, carried to the workers.

    Should the counter not answer, or its node be lost, the attempt counts as the first: a poison record then costs
    one worker more.
    """

    def __init__(self) -> None:
        # Beside the driver if it can be: then it is lost with the job alone.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        counter: Any = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Counter)  # type: ignore[call-overload]
        self._counter = counter.remote()

    def begin(self, key: str) -> tuple[int, float]:
        try:
            earlier, seconds = ray.get(self._counter.begin.remote(key), timeout=_ANSWER_SECONDS)
        except RayError:
            return 0, 0.0
        if earlier:
            count("segbatch_chunk_retries", stage=key.split()[0])
        return earlier, seconds

    def end(self, key: str) -> None:
        self._counter.end.remote(key)
