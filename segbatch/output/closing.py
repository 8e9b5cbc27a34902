"""The end of a run: reconcile its shards with a fresh listing, publish statistics, card, run.json, then _SUCCESS."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segbatch.errors import OutputError
from segbatch.output import compaction
from segbatch.output.file_table import FileTable
from segbatch.output.layout import SUCCESS
from segbatch.output.reconcile import missing, others, stale
from segbatch.output.run_record import SkippedInputs, Timings
from segbatch.output.stats import write_card, write_classes
from segbatch.output.sums import ReceiptSums
from segbatch.output.writer import publish_claimed
from segbatch.records import Shard
from segbatch.skipped import Skipped

if TYPE_CHECKING:
    from segbatch.output.output import Output

_MAX_SHOWN = 10


def finish(
    output: Output,
    shards: Sequence[Shard],
    receipt_sums: ReceiptSums,
    skipped: Skipped,
    seconds: float,
    samples: int,
) -> int:
    """Publish the statistics and ``_SUCCESS``, once every chunk of every shard is in a fresh listing.

    That every task of a run returned does not prove that each chunk was written; the listing does.

    Args:
        output: The output that the job has joined.
        shards: Those of the inputs.
        receipt_sums: Sums over the chunks that this run has committed; receives those of all others.
        skipped: What the listings of the inputs hold besides shards.
        seconds: What this run took.
        samples: Number of previews to keep.

    Returns:
        Chunks that were retired: their shard is not in the inputs, or has changed.

    Raises:
        OutputError: Chunks are missing, or the storage fails. Nothing is published.
        OutputTaken: Another job has taken the output over. Nothing is published.
    """
    output.claim.check(output.store)
    computed = len(receipt_sums.filenames)
    output.refresh(receipt_sums.written.table())
    output.clean()
    ledger = output.files.ledger
    _refuse_missing(output, missing(shards, ledger))
    outdated = stale(shards, ledger)
    is_superseded = bool(outdated or ledger.redundant or ledger.partial)
    if computed or is_superseded or not output.is_finished:
        for receipt in output.files.receipts(others(shards, ledger, receipt_sums.filenames)):
            receipt_sums.add(receipt)
        output.unpublish()  # absent until all is in place, so that whoever waits for it reads no row twice
        if is_superseded:
            _remove_superseded(output, outdated)
        output.gather_previews(samples)
        close(output, receipt_sums, computed, skipped, seconds)
    else:
        output.update(skipped=SkippedInputs(files=skipped, members=output.record.skipped.members))
    return len(outdated)


def _refuse_missing(output: Output, lines: list[str]) -> None:
    if lines:
        more = [f"and {len(lines) - _MAX_SHOWN} more shards"] if len(lines) > _MAX_SHOWN else []
        shown = "; ".join([*lines[:_MAX_SHOWN], *more])
        raise OutputError(f"{output.uri}: not everything is committed: {shown}; run the same command again")


def _remove_superseded(output: Output, outdated: list[str]) -> None:
    """Remove superseded rows from ``masks/``, and archive the chunks in ``outdated``."""
    store, claim = output.store, output.claim
    output.refresh(FileTable.of(compaction.remove_superseded(store, output.files.ledger, claim)))
    output.refresh(FileTable.of(compaction.retire(store, output.files.ledger, outdated, claim)))
    output.files.save(store, claim)


def close(
    output: Output, receipt_sums: ReceiptSums, computed: int, skipped: Skipped, seconds: float, is_complete: bool = True
) -> None:
    """Write statistics, card and run.json; ``_SUCCESS`` last, if the output is complete and no shard failed as a whole.

    Args:
        output: The output that the job has joined.
        receipt_sums: Sums over all chunks.
        computed: Number of chunks that this run has computed.
        skipped: What the listings of the inputs hold besides shards.
        seconds: Duration of the run.
        is_complete: Whether every chunk of every shard is committed.
    """
    store, record = output.store, output.record
    output.claim.check(store)
    if not is_complete:
        output.unpublish()
    write_classes(store, receipt_sums.totals, record.labels)
    write_card(store, record, receipt_sums.totals)
    spent = Counter(record.timings.worker_seconds)  # of earlier runs
    spent.update(receipt_sums.timings)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    output.write_record(
        record.changed(
            state="done" if is_complete else "running",
            finished=now if is_complete else None,
            totals=receipt_sums.totals.sparse(),
            skipped=SkippedInputs(files=skipped, members=receipt_sums.skipped),
            timings=Timings(
                worker_seconds={stage: round(spent[stage], 2) for stage in sorted(spent)},
                seconds=round(seconds, 2),
                chunks=len(receipt_sums.filenames),
                chunks_computed=computed,
                mask_bytes=receipt_sums.size,
            ),
        )
    )
    if is_complete and not receipt_sums.totals.failed_shards:
        publish_claimed(store, record.claim, SUCCESS, b"")
    store.clean_temporary_files()
