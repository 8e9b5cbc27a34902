"""Plan a job: its shards and chunks, which of them are committed, which are left. Does not import Ray."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from segbatch.config.job import JobSpec
from segbatch.errors import SpecError
from segbatch.output.inventory import Inventory
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.owned import refuse_unwritable
from segbatch.output.run_record import RunRecord
from segbatch.output.writer import Writer
from segbatch.planning.chunking import choose_chunk_size, chunks_of, records_of
from segbatch.planning.job import Job, resolve
from segbatch.planning.nesting import refuse_nesting
from segbatch.planning.pools import Hardware
from segbatch.planning.resume import changed_limits, changed_source, refuse_other, refuse_other_version
from segbatch.protocols import Reporter
from segbatch.records import ChunkSelection, Shard, ShardSlice
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.storage.store import Store
from segbatch.text import counted

MANY_RECORDS = 10**6


@dataclass(frozen=True)
class Plan:
    """What a job will do. Frozen: what a run finds out later makes a new plan.

    Attributes:
        job: The settings, with what they name resolved.
        output: Where the results go.
        record: The run.json to write, or the one in the output.
        ledger: Committed chunks that are not computed again.
        is_first: Whether no job has joined the output, or this one replaces it.
        is_staged: Whether chunks are committed into the staging area; ``ledger`` has those of both folders then.
        changes: One line for each harmless difference from earlier runs of the output: its limits, a network's source.
        retried: Committed chunks with error rows that are computed again; ``ledger`` is without them.
    """

    job: Job
    output: Output
    record: RunRecord
    ledger: Ledger = field(default_factory=lambda: Ledger(()), repr=False)
    is_first: bool = True
    is_staged: bool = False
    changes: tuple[str, ...] = ()
    retried: frozenset[str] = frozenset()

    @staticmethod
    def unwritten(job: Job, cores: float) -> Plan:
        """Return a plan that computes everything and has no output."""
        job = replace(job, spec=job.spec.model_copy(update={"report_samples": 0}))
        return Plan(job, Output(Store("memory://unused")), job.record()).with_chunk_size(cores)

    @property
    def chunk_size(self) -> int:
        """Records per chunk; 0 before it is chosen."""
        return self.record.chunk_size

    def with_chunk_size(self, cores: float) -> Plan:
        """Return the plan with a chunk size for so many cores, unless the output or the job has fixed it."""
        if self.record.chunk_size:
            return self
        size = choose_chunk_size(self.job.shards, cores)
        return replace(self, record=self.record.changed(chunk_size=size), job=self.job.divided(size))

    def with_precision(self, hardware: Hardware) -> Plan:
        """Return the plan with the precision that ``auto`` stands for on this hardware, unless it is fixed."""
        job = self.job.with_precision(hardware)
        return self if job is self.job else replace(self, job=job, record=self.record.changed(identity=job.identity()))

    def writer(self) -> Writer:
        """Return what commits the chunks of the plan, once the job has joined its output. Picklable."""
        return self.output.writer(self.is_staged)

    def warnings(self) -> list[str]:
        """Return what works and is probably not intended."""
        return [*self.changes, *self.job.warnings()]

    @property
    def is_complete(self) -> bool:
        """Whether every chunk of every shard is committed."""
        return all(self.ledger.committed(s.id).is_complete for s in self.job.shards)

    def slices(self, reporter: Reporter | None = None) -> Iterator[ShardSlice]:
        """Yield the remaining read tasks, in order. A complete shard is not opened.

        Args:
            reporter: Receives a message before the ids of many records are read, at some microseconds each.
        """
        remaining = [shard for shard in self.job.shards if not self.ledger.committed(shard.id).is_complete]
        starts = {shard.id: self.job.source.starts(shard, self.chunk_size) for shard in remaining}
        # A read task without an index holds a hash of each id.
        unindexed = [s for s in remaining if len(starts[s.id]) > 1 or (s.records or 0) >= MANY_RECORDS]
        records = sum(shard.records or 0 for shard in unindexed)
        if reporter is not None and records >= MANY_RECORDS:
            reporter.message(f"reading the ids of {counted(records, 'record')} in {counted(len(unindexed), 'file')}")
        indexed = {shard.id: shard for shard in self.job.source.index(unindexed)}
        for shard in remaining:
            done = frozenset(self.ledger.committed(shard.id).indices)
            if shard.records is None:
                yield ShardSlice(shard, ChunkSelection(done=done))
                continue
            ends = [*starts[shard.id], chunks_of(shard.records, self.chunk_size)]
            for first, stop in itertools.pairwise(ends):
                done_in_slice = done & frozenset(range(first, stop))
                if len(done_in_slice) < stop - first:
                    yield ShardSlice(indexed.get(shard.id, shard), ChunkSelection(first, stop, done_in_slice))

    def chunks(self, shard: Shard) -> int:
        """Return the number of chunks of a shard: exact if complete or told by the format, else estimated by size."""
        state = self.ledger.committed(shard.id)
        if state.last is not None:
            return state.last + 1
        return max(chunks_of(records_of(shard), self.chunk_size), len(state.indices))

    def chunks_total(self) -> int:
        return sum(self.chunks(s) for s in self.job.shards)

    def chunks_left(self) -> int:
        """Number of chunks to compute; an estimate while a tar has not been read to its end."""
        return self.chunks_total() - self.chunks_done()

    def chunks_done(self) -> int:
        return sum(len(self.ledger.committed(s.id).indices) for s in self.job.shards)

    def shards_done(self) -> int:
        return sum(self.ledger.committed(s.id).is_complete for s in self.job.shards)


def make_plan(spec: JobSpec, *, staged: bool = False, beside: Sequence[str] = ()) -> Plan:
    """Plan a job: list its inputs and its output. Writes nothing.

    Args:
        spec: The job.
        staged: Commit into the staging area, whose chunks count as committed.
        beside: Folders of inputs that may follow, which the corpus root of a new output contains, too.

    Raises:
        SegbatchError: The job cannot run, for whatever can be found out before any work.
    """
    if not spec.output:
        raise SpecError("output: required; give the folder or object-store prefix that the masks go to")
    refuse_nesting(spec)
    refuse_unwritable(Store(spec.output, spec.storage_options))
    output = Output.at(spec.output, spec.storage_options)
    output.refuse_foreign(spec.overwrite)
    if spec.overwrite or not output.exists:
        job = resolve(spec, beside=beside)
        record = job.record()
        job.source.check(job.shards)
        return Plan(job.divided(record.chunk_size) if record.chunk_size else job, output, record, is_staged=staged)
    existing = output.record
    refuse_other_version(output.uri, existing, ROWS_VERSION)
    job = resolve(spec, existing.identity)
    requested = job.record()
    refuse_other(output.uri, existing, requested, spec)
    output.load(staged)
    ledger = (
        Ledger([*output.files.ledger.filenames(), *output.staged.ledger.filenames()]) if staged else output.files.ledger
    )
    job = job.divided(existing.chunk_size)
    retried = _with_errors(job.shards, output.files) if spec.retry_errors else frozenset()
    return Plan(
        job,
        output,
        existing,
        ledger.without(retried) if retried else ledger,
        is_first=False,
        is_staged=staged,
        changes=(*changed_limits(existing, spec), *changed_source(existing, requested)),
        retried=retried,
    )


def _with_errors(shards: Sequence[Shard], files: Inventory) -> frozenset[str]:
    """Return the committed chunks of ``shards`` that have error rows."""
    chunks = [name for s in shards for name in files.ledger.committed(s.id).filenames(s.id)]
    return frozenset(r.filename for r in files.receipts(chunks) if r.totals.failed)
