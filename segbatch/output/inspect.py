"""Reading an output back: its sums, its error rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from segbatch.metrics.pixels import Totals
from segbatch.output.ledger import Ledger, read_receipts
from segbatch.output.run_record import RunRecord
from segbatch.output.store import Store
from segbatch.output.writer import MASKS


@dataclass(frozen=True)
class Summary:
    """The sums of an output, from run.json if it is done, else from what is committed so far."""

    record: RunRecord
    totals: Totals
    done: bool


def summary(uri: str, storage_options: dict[str, Any] | None = None) -> Summary:
    """Raises ``PlanError`` for a folder that holds no run."""
    store = Store(uri, storage_options)
    record = RunRecord.need(store)
    if record.state == "done":
        return Summary(record, record.sums(), True)
    totals = Totals(len(record.classes))
    for receipt in read_receipts(store, Ledger.read(store).filenames()):
        totals.add(receipt.totals)
    return Summary(record, totals, False)


def error_rows(uri: str, limit: int, storage_options: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Up to ``limit`` error rows (image_id, source, index, error), in order of the files."""
    store = Store(uri, storage_options)
    for receipt in read_receipts(store, sorted(Ledger.read(store).filenames())):
        if limit <= 0:
            return
        if not receipt.totals.failed:
            continue
        with store.open(f"{MASKS}/{receipt.filename}") as f:
            rows = pq.read_table(f, columns=["image_id", "source", "index", "error"]).to_pylist()
        for row in [r for r in rows if r["error"] is not None][:limit]:
            limit -= 1
            yield row
