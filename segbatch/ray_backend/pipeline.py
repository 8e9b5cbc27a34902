"""Run the stages of a job on Ray Data: read, segment, refine and commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial

import pyarrow as pa
from ray.data import ActorPoolStrategy, DataContext, Dataset, read_datasource

from segbatch.isolation import Limits
from segbatch.isolation.failures import failure
from segbatch.logs import Logs, event
from segbatch.output.receipt import Receipt
from segbatch.output.writer import Writer
from segbatch.planning.breaker import Breaker, ChunkOutcome
from segbatch.planning.interruption import committed_so_far
from segbatch.planning.plan import Plan
from segbatch.planning.pools import Pools
from segbatch.planning.progress import ProgressCounter
from segbatch.planning.stages import refine_config, segment_config
from segbatch.protocols import Progress, Reporter
from segbatch.ray_backend.attempts import RayAttempts
from segbatch.ray_backend.datasource import ShardDatasource
from segbatch.ray_backend.prometheus import gauge
from segbatch.ray_backend.workers import RefineWorker, SegmentWorker, commit_chunk, outcome_of
from segbatch.stopping import on_stop

logger = logging.getLogger(__name__)


def execute(
    plan: Plan, pools: Pools, reporter: Reporter, logs: Logs, should_stop: Callable[[], bool] = lambda: False
) -> Generator[Receipt]:
    """Compute the remaining chunks of a plan on Ray Data, and commit each one.

    Args:
        plan: Of a job that has joined its output.
        should_stop: Polled once per second. Once true, workers finish the chunks in flight and start no new ones.

    Yields:
        One receipt per committed chunk, in completion order.

    Raises:
        SegbatchError: Committed chunks are kept.
    """
    for text in plan.warnings():
        reporter.warning(text)
    counter = ProgressCounter(plan, max(pools.segment_actors, pools.refine_actors))
    reporter.planned(counter.progress, pools.describe())
    _show_chunks_left(counter.progress)
    writer = plan.writer()
    attempts = RayAttempts()

    def stopped() -> str:
        reporter.closed()
        committed = committed_so_far(plan)
        if logs.json:
            event(logger, logging.WARNING, "run stopped", committed=committed)
            return ""
        return f"stopped: {committed}; the same command resumes"

    breaker = Breaker(plan, partial(commit_chunk, writer))
    try:
        outcomes = _outcomes(chunk_dataset(plan, pools, writer, attempts, logs, reporter))
        with on_stop(stopped), attempts.stopping(should_stop), closing(outcomes):
            for receipt in breaker.receipts(outcomes, should_stop):
                counter.add(receipt)
                reporter.committed(receipt.filename, receipt.totals.records, receipt.totals.failed, counter.progress)
                _show_chunks_left(counter.progress)
                yield receipt
    finally:
        reporter.closed()


def chunk_dataset(
    plan: Plan,
    pools: Pools,
    writer: Writer | None,
    attempts: RayAttempts,
    logs: Logs,
    reporter: Reporter | None = None,
) -> Dataset:
    """Build the dataset read -> segment -> refine (+ commit). Its rows are chunks; hence ``batch_size=1``."""
    limits = Limits.of(plan.job.spec, pools.workers_per_node)
    with DataContext.current(_context(plan, limits)):  # a dataset keeps a copy of the context that it is built in
        chunks = read_datasource(
            ShardDatasource(plan.job.source, list(plan.slices(reporter)), plan.chunk_size, attempts),
            num_cpus=pools.read_cpus,
        )
        scored = chunks.map_batches(
            SegmentWorker,
            fn_constructor_args=(segment_config(plan.job, pools), limits, attempts, logs),
            compute=_pool(pools.segment_actors, pools.max_segment_actors),
            num_cpus=pools.segment_cpus,
            num_gpus=pools.segment_gpus,
            batch_size=1,
            batch_format="pyarrow",
        )
        return scored.map_batches(
            RefineWorker,
            fn_constructor_args=(refine_config(plan.job, pools), limits, attempts, logs, writer),
            compute=_pool(pools.refine_actors, pools.max_refine_actors),
            num_cpus=pools.refine_cpus,
            batch_size=1,
            batch_format="pyarrow",
        )


def _context(plan: Plan, limits: Limits) -> DataContext:
    """Return the caller's settings of Ray Data, except those by which Ray would stop a job or drop chunks."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # Ray 2.60 stops a job in which no chunk moved for 30 minutes; the limits of segbatch allow a chunk more.
    context.execution_no_progress_timeout_s = limits.chunk_seconds(plan.chunk_size, plan.job.spec.max_pixels)
    context.wait_for_min_actors_s = -1  # nodes may take any time to start
    context.max_errored_blocks = 0  # more would drop chunks
    # isolation.supervise counts failed starts; the exception that remains after the last one stops the job.
    context.actor_init_retry_on_errors = False
    context.max_consecutive_actor_init_deaths = 0
    context.raise_original_map_exception = True  # Ray's own exception loses its cause on the way to the driver
    return context


def _pool(size: int, max_size: int) -> ActorPoolStrategy:
    """Return a fixed pool, or one of 1 to ``max_size`` workers; each has up to two chunks in flight."""
    if not max_size:
        return ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2)
    initial = min(size, max_size)
    return ActorPoolStrategy(min_size=1, max_size=max_size, initial_size=initial, max_tasks_in_flight_per_actor=2)


def _outcomes(chunks: Dataset) -> Generator[ChunkOutcome]:
    """Yield chunks that are committed, or held back. Raises the ``SegbatchError`` of a worker."""
    try:
        for batch in chunks.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            for row in batch.to_pylist():
                yield outcome_of(row)
    except Exception as e:  # Ray failures: of many types, each carries a worker's error or names a condition of Ray
        raise failure(e) from e


def _show_chunks_left(progress: Progress) -> None:
    gauge("segbatch_chunks_left", max(0, progress.total - progress.done))
