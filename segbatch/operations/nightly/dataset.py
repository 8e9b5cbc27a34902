"""One dataset in a nightly run: compute what is new in the staging area, then promote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.evaluation.drift import Content, histogram
from segbatch.leaves import Overlaps, bits_of
from segbatch.logs import Logs
from segbatch.operations.nightly.record import DatasetReport
from segbatch.output.catalog import ShardRow
from segbatch.output.closing import close
from segbatch.output.layout import key_of
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.promotion import Promoted
from segbatch.output.result_file import ResultFile
from segbatch.output.sums import ReceiptSums
from segbatch.output.totals import Totals
from segbatch.planning.claim import establish, keep_latest
from segbatch.planning.plan import Plan, make_plan
from segbatch.planning.pools import plan_pools
from segbatch.protocols import Reporter
from segbatch.ray_backend.connection import cluster
from segbatch.records import digest
from segbatch.storage.lease import Lease
from segbatch.text import counted

_READERS = 16
_NEWS = ("new", "changed", "removed")
_MAX_NAMES = 100


@dataclass
class Work:
    """What is left of a dataset.

    Attributes:
        plan: The plan of the remaining chunks.
        catalog: Its shards.
        receipt_sums: Sums over the chunks that this run has committed.
    """

    plan: Plan
    catalog: dict[str, ShardRow]
    receipt_sums: ReceiptSums = field(init=False)

    def __post_init__(self) -> None:
        self.receipt_sums = ReceiptSums(len(self.plan.job.model.labels))

    @property
    def output(self) -> Output:
        """The output of the dataset."""
        return self.plan.output

    @property
    def promoted(self) -> Ledger:
        """The committed chunks of earlier nights."""
        return self.output.files.ledger

    @property
    def has_news(self) -> bool:
        """Whether a run would change anything."""
        return not self.plan.is_complete or self.plan.record.state != "done" or any(self.counts()[k] for k in _NEWS)

    def counts(self) -> dict[str, int]:
        """Return the numbers of shards: total, new, changed, removed, and left, which are incomplete."""
        keys = {key_of(i) for i in self.promoted.shards}
        shards, before = self.plan.job.shards, Overlaps(keys)
        now = Overlaps(s.key for s in shards)
        incomplete = [s for s in shards if not self.promoted.committed(s.id).is_complete]
        changed = sum(s.key in before and s.id not in self.promoted.shards for s in incomplete)
        return {
            "total": len(shards),
            "new": len(incomplete) - changed,
            "changed": changed,
            "removed": sum(key not in now for key in keys),
            "left": sum(not self.plan.ledger.committed(s.id).is_complete for s in shards),
        }

    def vanished(self) -> dict[str, tuple[int, int]]:
        """Return how many of the promoted shards and loose images are gone from the inputs, and of how many.

        Shards of loose images come and go with these, so they are compared by the number of images in all of them.
        """
        leaves = [i for i in self.promoted.shards if bits_of(key_of(i)) is not None]
        keys = {key_of(i) for i in self.promoted.shards.keys() - set(leaves)}
        gone = {"shards": (len(keys - {s.key for s in self.plan.job.shards}), len(keys))}
        if leaves:
            images = self._records(leaves)
            listed = sum(s.records or 0 for s in self.plan.job.shards if bits_of(s.key) is not None)
            gone["loose images"] = (max(0, images - listed), images)
        return gone

    def _records(self, shard_ids: Collection[str]) -> int:
        """Return the number of promoted records of shards, by the catalog or by the receipts of their files."""
        known = {row.shard_id: row.records for row in self.catalog.values()}
        unknown = [n for i in shard_ids if i not in known for n in self.promoted.committed(i).filenames(i)]
        receipts = self.output.files.receipts(unknown)
        return sum(known.get(i, 0) for i in shard_ids) + sum(r.totals.records for r in receipts)


def describe(counts: dict[str, int]) -> str:
    """Return ``2 of 90 shards to compute: 1 new, 1 changed; 0 gone``."""
    new, changed = f"{counts['new']:,} new", f"{counts['changed']:,} changed"
    left = f"{counts['left']:,} of {counted(counts['total'], 'shard')} to compute"
    return f"{left}: {new}, {changed}; {counts['removed']:,} gone"


def prepare(job: JobSpec, max_removed: float, dry_run: bool = False, beside: Sequence[str] = ()) -> Work:
    """Plan a dataset. An interrupted promotion is completed first.

    Args:
        job: Its job.
        max_removed: Share of the shards or loose images that may be gone from the inputs, 0 to 1.
        dry_run: Write nothing.
        beside: Folders of inputs that may follow, see ``make_plan``.

    Raises:
        SegbatchError: The job cannot run, or more is gone. Nothing is changed.
    """
    if not dry_run:
        Output.at(job.output, job.storage_options).complete_promotion()
    plan = make_plan(job, staged=True, beside=beside)
    work = Work(plan, plan.output.catalog())
    for what, (gone, total) in work.vanished().items():
        if gone > max_removed * total:
            raise PlanError(
                f"{plan.output.uri}: {gone:,} of its {total:,} {what} are gone from the inputs, a larger share than "
                f"max_removed = {max_removed:g}; nothing is changed; if that is intended, raise max_removed once"
            )
    return work


def compute_staged(work: Work, reporter: Reporter, should_stop: Callable[[], bool]) -> None:
    """Compute the remaining chunks into the staging area, until all are committed or ``should_stop``."""
    if work.plan.is_complete:
        return
    spec = work.plan.job.spec
    logs = Logs.of(spec.log_format, spec.storage_options)
    reporter.phase("starting Ray")
    work.output.store.try_writing()  # before Ray starts
    with logs.installed(), cluster(spec) as hardware:
        work.plan = establish(work.plan.with_chunk_size(hardware.cpus).with_precision(hardware))
        pools = plan_pools(work.plan.job.spec, hardware, work.plan.chunks_left(), work.plan.job.is_refine_bound)
        from segbatch.ray_backend.pipeline import execute  # Ray Data, which has been loaded while Ray started

        with closing(execute(work.plan, pools, reporter, logs, should_stop)) as receipts:
            for receipt in receipts:
                work.receipt_sums.add(receipt)


def promote(work: Work, date: str, lease: Lease, seconds: float) -> DatasetReport:
    """Promote the complete shards, and publish the output.

    Args:
        work: What was planned and computed.
        date: The date of the night.
        lease: Renewed before any change.
        seconds: Duration of the computation.

    Raises:
        LeaseLost: Another run has taken the lease over. Nothing is changed.
    """
    output, plan = work.output, work.plan
    promoted = output.promote(plan.job.shards, date, work.receipt_sums, work.catalog, lease.renew)
    keep_latest(plan)
    output.clean()
    is_complete = not promoted.incomplete
    if promoted.is_change or is_complete != output.is_finished:
        output.gather_previews(plan.job.spec.report_samples)
        close(output, promoted.sums, len(work.receipt_sums.filenames), plan.job.skipped, seconds, is_complete)
    return _report(work, promoted, date)


def _report(work: Work, promoted: Promoted, date: str) -> DatasetReport:
    rows, labels, sums = list(promoted.catalog.values()), work.plan.job.model.labels, promoted.sums
    now = Overlaps(s.key for s in work.plan.job.shards)
    tonight = {
        "new": [r for r in rows if r.night == date and r.removed is None and r.change == "new"],
        "changed": [r for r in rows if r.night == date and r.removed is None and r.change == "changed"],
        # A leaf of loose images that was split or merged is not removed.
        "removed": [r for r in rows if r.removed == date and key_of(r.shard_id) not in now],
    }
    content = Content(Totals(len(labels)))
    for row in tonight["new"] + tonight["changed"]:
        content.totals.add(row.sums.totals.expand(len(labels)))
    content.confidence = _confidences(work.output, {r.shard_id for r in tonight["new"] + tonight["changed"]})
    return DatasetReport(
        output=work.output.uri,
        state="stopped" if promoted.incomplete else "done",
        shards={
            "total": len(work.plan.job.shards),
            **{k: len(v) for k, v in tonight.items()},
            "left": promoted.incomplete,
        },
        names={k: sorted(r.name for r in v)[:_MAX_NAMES] for k, v in tonight.items()},
        model=_model(work.output.record.identity),
        classes=list(labels.names),
        totals=content.totals.sparse(),
        confidence=content.confidence.tolist(),
        current={
            "records": sums.totals.records,
            "errors": sums.totals.failed,
            "failed_shards": sums.totals.failed_shards,
        },
        errors=sums.totals.errors,
    )


def _confidences(output: Output, ids: set[str]) -> np.ndarray:
    """Return the histogram of the image confidences of shards; only that column is read."""
    ledger = output.files.ledger
    files = ledger.files([name for i in ids for name in ledger.committed(i).filenames(i)])

    def read(file: ResultFile) -> np.ndarray:
        return histogram(file.read(output.store, ["confidence"])["confidence"].drop_null().to_numpy())

    with ThreadPoolExecutor(_READERS) as pool:
        return sum(pool.map(read, files), start=histogram(np.zeros(0)))


def _model(identity: dict[str, Any]) -> str:
    """Return a digest of all that decides the rows but the corpus: nights are compared if it is equal."""
    return digest(json.dumps({**identity, "root": None}, sort_keys=True), length=16)
