"""From a spec to a plan: shards, chunks, what is committed, what is left. Nothing here needs Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from segbatch.config.job import JobSpec
from segbatch.errors import SpecError
from segbatch.output.inventory import Inventory
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import RunRecord
from segbatch.planning.chunking import MAX_SLICE_CHUNKS, choose_chunk_size, chunks_of, records_of
from segbatch.planning.claim import changed_limits, existing_record, refuse_other, refuse_other_version
from segbatch.planning.job import Job, resolve
from segbatch.planning.nesting import refuse_nesting
from segbatch.records import ChunkSelection, Shard, ShardSlice
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.storage.store import Store


@dataclass
class Plan:
    """What will be done. ``record`` is the run.json to write, or the one that is there.

    ``changed_limits`` is what this run limits otherwise than the last run of the output did, a line or none;
    ``retried`` are committed chunks with error rows that are computed again: ``ledger`` is without them, ``inventory``
    has them.
    """

    job: Job
    store: Store
    record: RunRecord
    ledger: Ledger
    fresh: bool
    inventory: Inventory = field(default_factory=Inventory)
    changed_limits: list[str] = field(default_factory=list)
    retried: frozenset[str] = frozenset()

    @staticmethod
    def unwritten(job: Job, cores: float) -> Plan:
        """A plan that reads everything and has no output."""
        plan = Plan(job, Store("memory://unused"), job.record(), Ledger(()), fresh=True)
        plan.fix_chunk_size(cores)
        return plan

    @property
    def chunk_size(self) -> int:
        return self.record.chunk_size

    def fix_chunk_size(self, cores: float) -> None:
        """Choose the chunk size, if the output or the spec has not fixed it."""
        if not self.record.chunk_size:
            self.record = self.record.changed(chunk_size=choose_chunk_size(self.job.shards, cores))
            self.job = self.job.divided(self.chunk_size)

    def adopt(self) -> None:
        """Plan again by the run.json that another first run has written meanwhile."""
        again = make_plan(self.job.spec.model_copy(update={"overwrite": False}))
        self.job, self.record, self.ledger, self.inventory = again.job, again.record, again.ledger, again.inventory
        self.changed_limits, self.retried = again.changed_limits, again.retried

    def warnings(self) -> list[str]:
        """What will work, and is likely not meant."""
        return [*self.changed_limits, *self.job.warnings()]

    @property
    def complete(self) -> bool:
        return all(self.ledger.committed(s.id).complete for s in self.job.shards)

    def slices(self) -> Iterator[ShardSlice]:
        """Yield the remaining read tasks, in order. A complete shard is not opened."""
        remaining = [shard for shard in self.job.shards if not self.ledger.committed(shard.id).complete]
        divisible = {shard.id: shard for shard in remaining if self._known_chunks(shard) > MAX_SLICE_CHUNKS}
        indexed = dict(zip(divisible, self.job.source.index(list(divisible.values())), strict=True))
        for shard in remaining:
            done, total = frozenset(self.ledger.committed(shard.id).indices), self._known_chunks(shard)
            if not total:
                yield ShardSlice(shard, ChunkSelection(done=done))
            for first in range(0, total, MAX_SLICE_CHUNKS):
                stop = min(total, first + MAX_SLICE_CHUNKS)
                done_here = done & frozenset(range(first, stop))
                if len(done_here) < stop - first:
                    yield ShardSlice(indexed.get(shard.id, shard), ChunkSelection(first, stop, done_here))

    def _known_chunks(self, shard: Shard) -> int:
        """Number of chunks of a shard, 0 if its format does not tell."""
        return 0 if shard.records is None else chunks_of(shard.records, self.chunk_size)

    def chunks(self, shard: Shard) -> int:
        """Chunks of a shard: exact if it is complete or its format tells, else by its size."""
        state = self.ledger.committed(shard.id)
        if state.last is not None:
            return state.last + 1
        return max(chunks_of(records_of(shard), self.chunk_size), len(state.indices))

    def chunks_total(self) -> int:
        return sum(self.chunks(s) for s in self.job.shards)

    def chunks_done(self) -> int:
        return sum(len(self.ledger.committed(s.id).indices) for s in self.job.shards)

    def shards_done(self) -> int:
        return sum(self.ledger.committed(s.id).complete for s in self.job.shards)

    def others(self, ledger: Ledger, received: set[str]) -> Iterator[str]:
        """Files of the plan's shards in ``ledger`` that are not among ``received``."""
        for shard in self.job.shards:
            yield from (n for n in ledger.committed(shard.id).filenames(shard.id) if n not in received)


def make_plan(spec: JobSpec) -> Plan:
    """What is to be done, and what is done. Writes nothing. Raises ``SegbatchError`` for all that cannot be run."""
    if not spec.output:
        raise SpecError("output: required; give the folder or object-store prefix that the masks go to")
    refuse_nesting(spec)
    store = Store(spec.output, spec.storage_options)
    there = existing_record(store, spec.overwrite)
    if spec.overwrite:
        there = None
    if there is not None:
        refuse_other_version(store, there, ROWS_VERSION)
    job = resolve(spec, there.identity if there else None)
    record = job.record()
    if there is None:
        job.source.check(job.shards)
        return Plan(job.divided(record.chunk_size) if record.chunk_size else job, store, record, Ledger(()), fresh=True)
    refuse_other(store, there, record, spec)
    inventory = Inventory.of_job(store, there.claim)
    job = job.divided(there.chunk_size)
    plan = Plan(job, store, there, inventory.ledger, False, inventory, changed_limits(there, spec))
    if spec.retry_errors:
        plan.retried = _with_errors(job.shards, inventory)
        plan.ledger = inventory.ledger.without(plan.retried)
    return plan


def _with_errors(shards: Sequence[Shard], inventory: Inventory) -> frozenset[str]:
    """Committed chunks of ``shards`` that have error rows."""
    chunks = [name for s in shards for name in inventory.ledger.committed(s.id).filenames(s.id)]
    return frozenset(r.filename for r in inventory.receipts(chunks) if r.totals.failed)
