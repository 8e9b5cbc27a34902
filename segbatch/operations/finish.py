"""The end of a run: reconcile the plan with the ledger, sum up, write statistics, run.json and _SUCCESS."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from segbatch.errors import SHARD_FAILURES, OutputError
from segbatch.labels import LabelSet
from segbatch.output.compaction import retire, tidy
from segbatch.output.file_table import FileTable
from segbatch.output.layout import RUN, SUCCESS
from segbatch.output.output import Output
from segbatch.output.run_record import RunRecord, SkippedInputs, Timings
from segbatch.output.stats import write_card, write_classes
from segbatch.output.sums import Tally
from segbatch.output.totals import Totals
from segbatch.output.writer import publish_claimed
from segbatch.planning.claim import note_latest, settle_files
from segbatch.planning.plan import Plan
from segbatch.planning.reconcile import missing, stale
from segbatch.skipped import Skipped
from segbatch.storage.store import Store

_MAX_FAILED_SHARDS = 20


@dataclass(frozen=True)
class Outcome:
    """What a run came to. ``computed`` chunks were done by this call, the others were there before.

    ``skipped`` is what the input holds besides the records; ``failed_shards`` why shards failed as a whole, the first
    of them a message each.
    """

    output: str
    labels: LabelSet
    totals: Totals
    chunks: int
    computed: int
    retired: int
    seconds: float
    max_error_fraction: float
    skipped: Skipped = field(default_factory=Skipped)
    failed_shards: Sequence[str] = ()

    @property
    def error_fraction(self) -> float:
        return self.totals.failed / self.totals.records if self.totals.records else 0.0

    @property
    def exit_code(self) -> int:
        """0, or 3 if a larger share of the records are errors than the job allows, or a shard failed as a whole."""
        return 3 if self.error_fraction > self.max_error_fraction or self.totals.failed_shards else 0


def finish(plan: Plan, tally: Tally, seconds: float) -> Outcome:
    """Publish the statistics and ``_SUCCESS``, once every chunk of the plan is seen in the store.

    That a dataset ran to its end is no proof that each chunk was written; the listing is. Raises
    ``OutputError`` naming what is missing, and ``OutputTaken``; nothing is published then.
    """
    store, record = plan.store, plan.record
    record.claim.check(store)
    computed = len(tally.filenames)
    plan.inventory = plan.inventory.again(store, record.claim, tally.written.table())
    settle_files(plan)
    ledger = plan.inventory.ledger
    lacking = missing(plan.job.shards, ledger)
    if lacking:
        shown = "\n  ".join(lacking[:10] + ([f"and {len(lacking) - 10} more shards"] if len(lacking) > 10 else []))
        raise OutputError(f"{store.uri}: not everything is committed:\n  {shown}\nrun the same command again")
    note_latest(plan)
    outdated = stale(plan.job.shards, ledger)
    files_changed = bool(outdated or ledger.redundant or ledger.partial)
    listing_changed = record.skipped.files != plan.job.skipped
    plan.record = record = plan.record.changed(
        skipped=SkippedInputs(files=plan.job.skipped, members=record.skipped.members)
    )
    if computed or files_changed or record.state != "done" or not store.exists(SUCCESS):
        for receipt in plan.inventory.receipts(plan.others(ledger, tally.filenames)):
            tally.add(receipt)
        store.remove(SUCCESS)  # until all is in place: who waits for it meets no row twice
        if files_changed:
            _remove_superseded(plan, outdated)
        plan.record = record = close(store, record, tally, computed, seconds)
    elif listing_changed:
        record.claim.check(store)
        store.write(RUN, record.to_bytes())
    totals = record.sums()
    return Outcome(
        output=store.uri,
        labels=record.labels,
        totals=totals,
        chunks=record.timings.chunks,
        computed=computed,
        retired=len(outdated),
        seconds=seconds,
        max_error_fraction=plan.job.spec.max_error_fraction,
        skipped=record.all_skipped,
        failed_shards=_failed_shards(plan) if totals.failed_shards else (),
    )


def _failed_shards(plan: Plan) -> list[str]:
    """Why the first shards failed as a whole, a message each."""
    ledger = plan.inventory.ledger
    failed = {ledger.holder(r.filename) for r in plan.inventory.receipts(ledger.filenames()) if r.totals.failed_shards}
    files = [file for file in ledger.files() if file.name in failed]
    is_shard_failure = pc.field("error", "type").isin(sorted(SHARD_FAILURES))
    rows = (
        row
        for batch in Output(plan.store, plan.record).batches(["error"], is_shard_failure, files=files)
        for row in batch.to_pylist()
    )
    return [row["error"]["message"] for row in itertools.islice(rows, _MAX_FAILED_SHARDS)]


def _remove_superseded(plan: Plan, outdated: list[str]) -> None:
    """Take rows that do not count out of ``masks/``: those that are in another file too, and those of ``outdated``."""
    store, claim = plan.store, plan.record.claim
    rows = tidy(store, plan.inventory.ledger, claim)
    plan.inventory = plan.inventory.again(store, claim, FileTable.of(rows))
    rows = retire(store, plan.inventory.ledger, outdated, claim)
    plan.inventory = plan.inventory.again(store, claim, FileTable.of(rows))
    plan.inventory.save(store, claim)


def close(
    store: Store, record: RunRecord, tally: Tally, computed: int, seconds: float, whole: bool = True
) -> RunRecord:
    """Write statistics, card and run.json from the sums in ``tally``; ``_SUCCESS`` last, if all is ``whole``.

    There is no ``_SUCCESS`` while a shard has failed as a whole.
    """
    record.claim.check(store)
    if not whole:
        store.remove(SUCCESS)
    write_classes(store, tally.totals, record.labels)
    write_card(store, record, tally.totals)
    spent = Counter(record.timings.worker_seconds)  # of earlier runs
    spent.update(tally.timings)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = record.changed(
        state="done" if whole else "running",
        finished=now if whole else None,
        totals=tally.totals.sparse(),
        skipped=SkippedInputs(files=record.skipped.files, members=tally.skipped),
        timings=Timings(
            worker_seconds={stage: round(seconds, 2) for stage, seconds in sorted(spent.items())},
            seconds=round(seconds, 2),
            chunks=len(tally.filenames),
            chunks_computed=computed,
            mask_bytes=tally.size,
        ),
    )
    store.write(RUN, record.to_bytes())
    if whole and not tally.totals.failed_shards:
        publish_claimed(store, record.claim, SUCCESS, b"")
    store.sweep()
    return record
