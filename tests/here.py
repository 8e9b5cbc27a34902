"""The whole job in this process, stage after stage, without Ray: for tests of what comes before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.operations.finish import Outcome, finish
from segbatch.output.sums import Tally
from segbatch.output.writer import MASKS, Receipt, Writer
from segbatch.planning.breaker import Breaker, Rows
from segbatch.planning.claim import publish
from segbatch.planning.plan import Plan, make_plan
from segbatch.planning.pools import Pools
from segbatch.planning.stages import refine_stage, segment_stage
from segbatch.protocols import UNWATCHED

POOLS = Pools(1, 1, 0, 1, 1, 0.2, 1, "cpu")


def spec(inputs: list[str], output: Path | str, **more: Any) -> JobSpec:
    """A small network, no refiner, chunks of four."""
    fields = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 4, **more}
    return JobSpec.create(inputs=inputs, output=str(output), **fields)


def receipts(plan: Plan, folder: str = MASKS) -> Iterator[Receipt]:
    """Does what is left of a plan, chunk by chunk, and commits it into ``folder`` of the output."""
    segment, refine = segment_stage(plan.job, POOLS), refine_stage(plan.job, POOLS)
    writer = Writer(plan.store, plan.record.claim, folder)

    def outcomes() -> Iterator[Receipt | Rows]:
        for piece in plan.pieces():
            for chunk in plan.job.source.chunks(piece.shard, plan.chunk_size, piece.skip(plan.chunk_size)):
                chunk.records, chunk.timings = segment.run(chunk, UNWATCHED)
                rows = Rows(chunk.id, *refine.run(chunk, UNWATCHED), chunk.skipped)
                yield rows if rows.is_suspect() else rows.commit(writer)

    return Breaker(plan, lambda rows: rows.commit(writer)).receipts(outcomes())


def run(spec: JobSpec, work: Callable[[Plan], Iterable[Receipt]] = receipts) -> Outcome:
    """``runtime.pipeline.run`` in one process."""
    plan = make_plan(spec)
    tally = Tally(len(plan.job.model.labels))
    if not plan.complete:
        plan.settle(1)
        publish(plan)
        for receipt in work(plan):
            tally.add(receipt)
    return finish(plan, tally, 0.0)
