"""Execute a plan in this process, one chunk after another and without Ray: for tests and debuggers."""

from __future__ import annotations

from collections.abc import Iterator

from segbatch.output.receipt import Receipt
from segbatch.planning.breaker import Breaker, ChunkOutcome, is_suspect
from segbatch.planning.plan import Plan
from segbatch.planning.pools import Pools
from segbatch.planning.stages import refine_config, segment_config
from segbatch.protocols import UNTRACKED

SINGLE_PROCESS = Pools(1, 1, 0, 1, 1, 0.2, 1, "cpu")


def execute(plan: Plan) -> Iterator[Receipt]:
    """Compute the remaining chunks of a plan, and commit each one.

    Yields:
        One receipt per committed chunk, in order of the plan.

    Raises:
        SegbatchError: Committed chunks are kept.
    """
    segment, refine = segment_config(plan.job, SINGLE_PROCESS).build(), refine_config(plan.job, SINGLE_PROCESS).build()
    writer = plan.writer()

    def outcomes() -> Iterator[ChunkOutcome]:
        for part in plan.slices():
            for chunk in plan.job.source.chunks(part.shard, plan.chunk_size, part.wanted):
                done = refine(segment(chunk, UNTRACKED), UNTRACKED)
                yield ChunkOutcome(held=done) if is_suspect(done) else ChunkOutcome(writer.commit(done))

    return Breaker(plan, writer.commit).receipts(outcomes())
