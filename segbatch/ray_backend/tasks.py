"""Call a function for many arguments in Ray tasks, and score a few chunks without a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from segbatch.isolation import Limits
from segbatch.isolation.failures import failure
from segbatch.logs import Logs
from segbatch.packing import chunk_from_row, chunk_to_row
from segbatch.planning.job import Job
from segbatch.planning.pools import Pools
from segbatch.planning.stages import segment_config
from segbatch.ray_backend.attempts import RayAttempts
from segbatch.ray_backend.workers import SegmentWorker
from segbatch.records import Chunk

T = TypeVar("T")


def shared(value: T) -> T:
    """Put ``value`` into the object store once, and return a reference; tasks that take it receive the value."""
    reference: Any = ray.put(value)
    return reference


def map_tasks(
    function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], max_pending: int | None = None
) -> Iterator[tuple[int, T]]:
    """Call ``function`` for each of ``arguments`` in tasks of one CPU.

    Args:
        max_pending: Tasks that are submitted and not finished at a time; any number by default.
    Yields:
        The position of the arguments and the result, as tasks finish.
    Raises:
        SegbatchError: That of a task, or the reason why Ray lost it.
    """
    task = ray.remote(num_cpus=1)(function)
    pending: dict[Any, int] = {}
    try:
        for position, given in enumerate(arguments):
            while max_pending is not None and len(pending) >= max_pending:
                yield _finished(pending)
            pending[task.remote(*given)] = position
        while pending:
            yield _finished(pending)
    except ray.exceptions.RayError as e:
        raise failure(e) from e


def segment_chunks(job: Job, pools: Pools, logs: Logs, chunks: Sequence[Chunk]) -> Iterator[tuple[int, Chunk]]:
    """Score ``chunks`` by the segment workers of a job. A chunk that crashes its worker is not retried.

    Yields the position of each chunk and the chunk with its scores, as they finish. Raises ``SegbatchError``.
    """
    worker: Any = ray.remote(SegmentWorker)
    worker = worker.options(num_cpus=pools.segment_cpus, num_gpus=pools.segment_gpus)
    attempts = RayAttempts()
    config, limits = segment_config(job, pools), Limits.of(job.spec, pools.workers_per_node)
    workers = [worker.remote(config, limits, attempts, logs) for _ in range(pools.segment_actors)]
    try:
        pending = {workers[n % len(workers)].__call__.remote(chunk_to_row(chunk)): n for n, chunk in enumerate(chunks)}
        while pending:
            position, row = _finished(pending)
            yield position, chunk_from_row(row)
    except ray.exceptions.RayError as e:
        raise failure(e) from e


def _finished(pending: dict[Any, int]) -> tuple[int, Any]:
    (reference,), _ = ray.wait(list(pending))
    return pending.pop(reference), ray.get(reference)
