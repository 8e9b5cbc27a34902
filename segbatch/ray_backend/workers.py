"""The actors of a job on Ray: each holds a stage, and takes and returns chunks as tables of one row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from ray import get_runtime_context

from segbatch.isolation import AttemptCounter, Draining, Limits, supervise
from segbatch.isolation.failures import carried
from segbatch.logs import Logs, event
from segbatch.output.receipt import Receipt
from segbatch.output.schema import to_table
from segbatch.output.writer import Writer
from segbatch.packing import chunk_from_row, chunk_to_row, pack_chunk, unpack_chunk
from segbatch.planning.breaker import ChunkOutcome, is_suspect
from segbatch.protocols import Stage
from segbatch.ray_backend.prometheus import committed
from segbatch.records import Chunk
from segbatch.stages.config import RefineConfig, SegmentConfig

logger = logging.getLogger(__name__)

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
        outcome = {"held": pack_chunk(done)} if is_suspect(done) else commit_chunk(self._writer, done).to_row()
        return pa.Table.from_pylist([outcome], schema=_OUTCOME)


def outcome_of(row: dict[str, Any]) -> ChunkOutcome:
    """Return the chunk, committed or held back, in a row that ``RefineWorker`` returned."""
    held = row["held"]
    return ChunkOutcome(held=unpack_chunk(held)) if held else ChunkOutcome(Receipt.from_row(row))


def commit_chunk(writer: Writer, chunk: Chunk) -> Receipt:
    """Commit a chunk, count it for Prometheus and log it."""
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
            event(logger, logging.INFO, "record failed", **fields)
    sums: dict[str, Any] = {"records": receipt.totals.records, "errors": receipt.totals.failed, "bytes": receipt.size}
    if receipt.skipped:
        sums["skipped"] = receipt.skipped.to_json()
    seconds = {stage: round(spent, 3) for stage, spent in receipt.timings.items()}
    event(logger, logging.INFO, "chunk committed", chunk=receipt.filename, **sums, seconds=seconds)
