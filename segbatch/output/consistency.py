"""Check the files of an output against each other: listing, run.json and statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa

from segbatch.output.file_table import FileTable
from segbatch.output.layout import CLASSES, FILES, MASKS, RUN, SUCCESS
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.run_record import RunRecord
from segbatch.output.stats import class_rows, read_classes
from segbatch.output.totals import Totals
from segbatch.skipped import Skipped

ALTERED = f"its bytes are not those that were committed, by their digest in {FILES}"


def statistics_problems(output: Output, totals: Totals) -> Iterator[str]:
    """Yield what is wrong with the published statistics, given the sums of all rows."""
    store, record = output.store, output.record
    if record.state != "done" or (not totals.failed_shards and not output.is_finished):
        yield f"no {SUCCESS}: a run or a compaction is not finished; the same command finishes it"
        return
    if record.sums() != totals:
        yield f"{RUN}: its totals are not the sums of the rows; run the job again"
    try:
        published = read_classes(store)
    except (OSError, pa.ArrowException) as e:
        yield f"{CLASSES}: cannot be read: {e}"
        return
    if published != class_rows(totals, record.labels):
        yield f"{CLASSES}: does not have the sums of the rows; run the job again"


def skipped_problems(record: RunRecord, members: Skipped) -> Iterator[str]:
    """Yield a problem if run.json has not the members skipped within shards that the receipts have."""
    recorded = record.skipped.members
    if record.state == "done" and recorded != members:
        yield (
            f"{RUN}: {recorded.count:,} skipped members of shards, the receipts of the chunks have {members.count:,}, "
            "or others; run the job again"
        )


def skipped_files_problems(record: RunRecord, files: Skipped, ignored: Collection[str]) -> Iterator[str]:
    """Yield a problem if run.json has not the files that the listings of the inputs skip now."""
    recorded, files = record.skipped.files.without(*ignored), files.without(*ignored)
    if record.state == "done" and recorded != files:
        now = "; ".join(files.lines()) or "nothing"
        yield (
            f"{RUN}: {recorded.count:,} skipped files of the inputs, the listing has {files.count:,} ({now}), or "
            "others; run the job again"
        )


def ledger_problems(ledger: Ledger) -> Iterator[str]:
    """Yield the files in ``masks/`` that should not be there."""
    for name in ledger.foreign:
        yield f"{MASKS}/{name}: not a name that segbatch gives; move it out of {MASKS}/"
    for name in ledger.redundant + ledger.partial:
        newer = ", ".join(sorted(ledger.files_of(name) - {name}))
        yield f"{MASKS}/{name}: its rows are in {newer} too; `segbatch compact` removes them"


def recorded_digests(output: Output) -> dict[str, str]:
    """Return the digests of the result files that the last run recorded; none if the output is not finished.

    Raises:
        DamagedTable: They cannot be read.
    """
    if not output.is_finished:
        return {}
    table = FileTable.read(output.store, output.claim)
    names = table.names()
    return {name: digest for name, digest in zip(names, table.digests(names), strict=True) if digest is not None}
