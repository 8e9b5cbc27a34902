"""What a job that is stopped has committed, in words."""

from __future__ import annotations

from segbatch.output.ledger import Ledger
from segbatch.planning.plan import Plan
from segbatch.text import counted


def committed_so_far(plan: Plan) -> str:
    """Return ``32 of 60 images committed``, from a fresh listing of the output.

    Images are counted where the number of records of all shards is known; otherwise the phrase is about chunks.
    """
    ledger = Ledger([*plan.ledger.filenames(), *plan.output.committed_names(plan.is_staged)])
    images = total = chunks = 0
    is_known = True
    for shard in plan.job.shards:
        indices = ledger.committed(shard.id).indices
        chunks += len(indices)
        if shard.records is None:
            is_known = False
        else:
            total += shard.records
            images += sum(min(plan.chunk_size, shard.records - i * plan.chunk_size) for i in indices)
    if is_known:
        return f"{images:,} of {counted(total, 'image')} committed"
    return f"{chunks:,} of about {counted(max(chunks, plan.chunks_total()), 'chunk')} committed"
