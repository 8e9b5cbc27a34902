"""Run the stages of a job on Ray Data: read, segment, refine and commit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa
from ray import get_runtime_context
from ray.data import ActorPoolStrategy, DataContext, Dataset, read_datasource

from segbatch.config.base import spec_of
from segbatch.config.job import JobSpec
from segbatch.isolation import AttemptCounter, Draining, Limits, supervise
from segbatch.isolation.failures import carried, failure
from segbatch.logs import Logs, event
from segbatch.output.receipt import Receipt
from segbatch.output.schema import to_table
from segbatch.output.sums import Tally
from segbatch.output.writer import Writer
from segbatch.packing import chunk_from_row, chunk_to_row, pack_chunk, unpack_chunk
from segbatch.planning.breaker import Breaker, ChunkOutcome, is_suspect
from segbatch.planning.job import resolve
from segbatch.planning.plan import Plan
from segbatch.planning.pools import Hardware, Pools, plan_pools
from segbatch.planning.progress import ProgressCounter
from segbatch.planning.stages import refine_config, segment_config
from segbatch.protocols import Progress, Reporter, Stage
from segbatch.ray_backend.attempts import RayAttempts
from segbatch.ray_backend.connection import join
from segbatch.ray_backend.datasource import ShardDatasource
from segbatch.ray_backend.prometheus import committed, gauge
from segbatch.records import Chunk
from segbatch.stages.config import RefineConfig, SegmentConfig

logger = logging.getLogger(__name__)


def compute(
    plan: Plan,
    hardware: Hardware,
    tally: Tally,
    reporter: Reporter,
    logs: Logs,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Execute the remaining chunks of a plan on Ray Data, and commit each one.

    Args:
        tally: Receives each receipt, in completion order.
        should_stop: Polled once per second. Once true, workers finish the chunks in flight and start no new ones.

    Raises:
        SegbatchError: Committed chunks are kept.
    """
    pools = plan_pools(plan.job.spec, hardware, plan.chunks_total() - plan.chunks_done())
    for text in plan.warnings():
        reporter.warning(text)
    counter = ProgressCounter(plan)
    reporter.planned(counter.progress, pools.describe())
    _show_chunks_left(counter.progress)
    writer = plan.writer()
    attempts = RayAttempts()
    breaker = Breaker(plan, partial(_commit, writer))
    try:
        outcomes = _outcomes(_stages(plan, pools, writer, attempts, logs))
        with attempts.stopping(should_stop), closing(outcomes):
            for receipt in breaker.receipts(outcomes, should_stop):
                tally.add(receipt)
                counter.add(receipt)
                reporter.committed(receipt.filename, receipt.totals.records, receipt.totals.failed, counter.progress)
                _show_chunks_left(counter.progress)
    finally:
        reporter.closed()


def _show_chunks_left(progress: Progress) -> None:
    gauge("segbatch_chunks_left", max(0, progress.total - progress.done))


def build_dataset(spec: JobSpec | None = None, /, **settings: Any) -> Dataset:
    """Return the masks of a job as a lazy Ray dataset, one row per record (``output.schema.schema``).

    Nothing is written or resumed, ``output`` is not used, and error rows of a broken network are not held back. Joins
    the cluster as ``run`` does, and leaves Ray running, as the dataset needs it.

    Args:
        spec: What to compute, and where; or give the fields of ``JobSpec`` as ``settings``.

    Raises:
        SegbatchError: The job cannot be planned, or Ray does not start.
    """
    spec = spec_of(JobSpec, spec, settings)
    job = resolve(spec)
    job.source.check(job.shards)
    hardware = join(spec)
    plan = Plan.unwritten(job, hardware.cpus)
    pools = plan_pools(spec, hardware, plan.chunks_total())
    return _stages(plan, pools, None, RayAttempts(), Logs.of(spec.log_format, spec.storage_options))


def _stages(plan: Plan, pools: Pools, writer: Writer | None, attempts: RayAttempts, logs: Logs) -> Dataset:
    """Build the dataset read -> segment -> refine (+ commit), whose rows are chunks; hence ``batch_size=1``."""
    with DataContext.current(_context(plan)):  # a dataset keeps a copy of the context that it is made in
        return _dataset(plan, pools, writer, attempts, logs)


def _context(plan: Plan) -> DataContext:
    """Return the caller's settings of Ray Data, except those by which Ray would stop a job or drop chunks."""
    spec = plan.job.spec
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # Ray 2.60 stops a job in which no chunk moved for 30 minutes; the limits of segbatch allow a chunk more.
    context.execution_no_progress_timeout_s = Limits.of(spec).chunk_seconds(plan.chunk_size, spec.max_pixels)
    context.wait_for_min_actors_s = -1  # nodes may take any time to start
    context.max_errored_blocks = 0  # more would drop chunks
    # isolation.supervise counts failed starts; the exception that remains after the last one stops the job.
    context.actor_init_retry_on_errors = False
    context.max_consecutive_actor_init_deaths = 0
    context.raise_original_map_exception = True  # Ray's own exception loses its cause on the way to the driver
    return context


def _dataset(plan: Plan, pools: Pools, writer: Writer | None, attempts: RayAttempts, logs: Logs) -> Dataset:
    limits = Limits.of(plan.job.spec)
    chunks = read_datasource(
        ShardDatasource(plan.job.source, list(plan.slices()), plan.chunk_size, attempts), num_cpus=pools.read_cpus
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


def _pool(size: int, max_size: int) -> ActorPoolStrategy:
    """Return a fixed pool, or one of 1 to ``max_size`` workers; each has up to two chunks in flight."""
    if not max_size:
        return ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2)
    initial = min(size, max_size)
    return ActorPoolStrategy(min_size=1, max_size=max_size, initial_size=initial, max_tasks_in_flight_per_actor=2)


class SegmentWorker:
    """An actor that holds the network."""

    def __init__(self, config: SegmentConfig, limits: Limits, attempts: AttemptCounter, logs: Logs) -> None:
        logs.install(worker="segment")
        self._stage = _supervised("segment", config.build, attempts, limits)

    def __call__(self, row: pa.Table) -> pa.Table:
        chunk = chunk_from_row(row)
        with carried(f"{chunk.id.filename} at segment"):
            try:
                return chunk_to_row(self._stage(chunk))
            except Draining:
                return row.slice(0, 0)


# The receipt of a committed chunk; or, in ``held``, a chunk that is not committed.
_OUTCOME = pa.schema(
    [
        ("footer", pa.binary()),
        ("size", pa.int64()),
        ("timings", pa.map_(pa.string(), pa.float64())),
        ("tag", pa.string()),
        ("digest", pa.string()),
        ("held", pa.binary()),
    ]
)


class RefineWorker:
    """An actor that refines, and commits if it has a writer. It returns a receipt, or without a writer the masks.

    A chunk whose last records failed is returned uncommitted: only the driver sees whether the records of other chunks
    succeed (``planning.breaker``).
    """

    def __init__(
        self, config: RefineConfig, limits: Limits, attempts: AttemptCounter, logs: Logs, writer: Writer | None
    ) -> None:
        logs.install(worker="refine")
        self._stage = _supervised("refine", config.build, attempts, limits)
        self._writer, self._has_marginal = writer, config.has_marginal

    def __call__(self, row: pa.Table) -> pa.Table:
        chunk = chunk_from_row(row)
        with carried(f"{chunk.id.filename} at refine"):
            return self._run(chunk)

    def _run(self, chunk: Chunk) -> pa.Table:
        try:
            done = self._stage(chunk)
        except Draining:
            return _OUTCOME.empty_table() if self._writer else to_table([], has_marginal=self._has_marginal)
        if self._writer is None:
            return to_table(done.records, has_marginal=self._has_marginal)
        outcome = {"held": pack_chunk(done)} if is_suspect(done) else _commit(self._writer, done).to_row()
        return pa.Table.from_pylist([outcome], schema=_OUTCOME)


def _commit(writer: Writer, chunk: Chunk) -> Receipt:
    begun = time.perf_counter()
    receipt = writer.commit(chunk)
    committed(receipt, time.perf_counter() - begun)
    _log_commit(receipt, chunk)
    return receipt


def _supervised(
    stage: str, build: Callable[[], Stage], attempts: AttemptCounter, limits: Limits
) -> Callable[[Chunk], Chunk]:
    with carried(f"{stage} worker"):
        return supervise(build, attempts, limits, f"{stage} {get_runtime_context().get_actor_id()}")


def _log_commit(receipt: Receipt, chunk: Chunk) -> None:
    for record in chunk.records:
        if record.error is not None:
            fields = {"chunk": receipt.filename, "image": record.image_id, **vars(record.error)}
            event(logger, logging.INFO, "a record is an error row", **fields)
    sums: dict[str, Any] = {"records": receipt.totals.records, "errors": receipt.totals.failed, "bytes": receipt.size}
    if receipt.skipped:
        sums["skipped"] = receipt.skipped.to_json()
    seconds = {stage: round(spent, 3) for stage, spent in receipt.timings.items()}
    event(logger, logging.INFO, "a chunk is committed", chunk=receipt.filename, **sums, seconds=seconds)


def _outcomes(chunks: Dataset) -> Generator[ChunkOutcome]:
    """Yield chunks that are committed, or held back. Raises the ``SegbatchError`` of a worker."""
    try:
        for batch in chunks.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            for row in batch.to_pylist():
                held = row["held"]
                yield ChunkOutcome(held=unpack_chunk(held)) if held else ChunkOutcome(Receipt.from_row(row))
    except Exception as e:  # Ray failures: of many types, each carries a worker's error or names a condition of Ray
        raise failure(e) from e
