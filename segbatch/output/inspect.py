"""Reading an output back: its sums, its error rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from segbatch.errors import SHARD_FAILURES
from segbatch.output.inventory import Inventory
from segbatch.output.ledger import Ledger
from segbatch.output.receipt import Receipt
from segbatch.output.result_file import ResultFile, read_footers
from segbatch.output.run_record import RunRecord
from segbatch.output.totals import Totals
from segbatch.skipped import Skipped
from segbatch.storage.store import Store


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
    files = Ledger.read(store).files()
    footers = read_footers(store, [file.name for file in files])
    yield from _rows(store, files, footers, limit, lambda totals: totals.failed, lambda error: True)


def failed_shards(store: Store, inventory: Inventory, limit: int) -> list[str]:
    """Why up to ``limit`` shards failed as a whole, a message each."""
    files = inventory.ledger.files()
    footers = inventory.files.receipts([file.name for file in files])
    is_shard_failure = lambda error: error["type"] in SHARD_FAILURES  # noqa: E731
    rows = _rows(store, files, footers, limit, lambda totals: totals.failed_shards, is_shard_failure)
    return [row["error"]["message"] for row in rows]


def _rows(
    store: Store,
    files: Sequence[ResultFile],
    footers: Iterator[tuple[str, list[Receipt]]],
    limit: int,
    count: Callable[[Totals], int],
    is_wanted: Callable[[dict[str, Any]], bool],
) -> Iterator[dict[str, Any]]:
    """Error rows that are wanted, from the files whose totals ``count`` some."""
    by_name = {file.name: file for file in files}
    for name, receipts in footers:
        if limit <= 0:
            return
        if not any(count(r.totals) for r in receipts):
            continue
        rows = by_name[name].read(store, ["image_id", "source", "index", "error"]).to_pylist()
        for row in [r for r in rows if r["error"] is not None and is_wanted(r["error"])][:limit]:
            limit -= 1
            yield row
