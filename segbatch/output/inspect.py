"""Reading an output back: its sums, its error rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from segbatch.metrics.pixels import Totals
from segbatch.output.ledger import Ledger, read_footers
from segbatch.output.run_record import RunRecord
from segbatch.output.store import Store
from segbatch.skipped import Skipped


@dataclass(frozen=True)
class Summary:
    """The sums of an output, from run.json if it is done, else from what is committed so far."""

    record: RunRecord
    totals: Totals
    done: bool
    skipped: Skipped = field(default_factory=Skipped)


def summary(uri: str, storage_options: dict[str, Any] | None = None) -> Summary:
    """Raises ``PlanError`` for a folder that holds no run."""
    store = Store(uri, storage_options)
    record = RunRecord.need(store)
    if record.state == "done":
        return Summary(record, record.sums(), True, record.skipped_of())
    totals, skipped = Totals(len(record.classes)), Skipped()
    for receipt in Ledger.read(store).receipts(store):
        totals.add(receipt.totals)
        skipped.merge(receipt.skipped)
    return Summary(record, totals, False, skipped)


def error_rows(uri: str, limit: int, storage_options: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Up to ``limit`` error rows (image_id, source, index, error), in order of the files."""
    store = Store(uri, storage_options)
    files = {file.name: file for file in Ledger.read(store).files()}
    for name, receipts in read_footers(store, list(files)):
        if limit <= 0:
            return
        if not any(r.totals.failed for r in receipts):
            continue
        rows = files[name].read(store, ["image_id", "source", "index", "error"]).to_pylist()
        for row in [r for r in rows if r["error"] is not None][:limit]:
            limit -= 1
            yield row
