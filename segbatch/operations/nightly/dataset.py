"""One dataset on one night: what is new is computed beside the current masks, then becomes current by one promotion."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.evaluation.drift import Content, histogram
from segbatch.leaves import Overlaps, bits_of
from segbatch.logs import Logs
from segbatch.operations.finish import close
from segbatch.operations.nightly.record import DatasetReport
from segbatch.output.catalog import ShardRow, ShardSums, read_catalog, write_catalog
from segbatch.output.file_table import FileTable
from segbatch.output.inventory import Inventory
from segbatch.output.layout import INCOMING, SUCCESS
from segbatch.output.ledger import Ledger
from segbatch.output.promotion import apply_promotion, complete_promotion, key_of, plan_promotion
from segbatch.output.result_file import ResultFile, read_file
from segbatch.output.run_record import SkippedInputs
from segbatch.output.sums import Tally
from segbatch.output.totals import Totals
from segbatch.planning.claim import establish, note_latest, settle_files
from segbatch.planning.plan import Plan, make_plan
from segbatch.protocols import Reporter
from segbatch.ray_backend.connection import cluster
from segbatch.ray_backend.pipeline import compute
from segbatch.records import ChunkId, Shard, digest
from segbatch.storage.files import shown_uri
from segbatch.storage.lease import Lease
from segbatch.storage.store import Store

_READERS = 16
_NEWS = ("new", "changed", "removed")
_MAX_NAMES = 100


@dataclass
class Work:
    """What a night finds: the plan of what is left, the current masks, those of earlier nights, the catalog."""

    plan: Plan
    masks: Ledger
    incoming: Inventory
    catalog: dict[str, ShardRow]
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(len(self.plan.job.model.labels))

    @property
    def store(self) -> Store:
        return self.plan.store

    @property
    def has_news(self) -> bool:
        """Whether a night would change anything."""
        return not self.plan.complete or self.plan.record.state != "done" or any(self.counts()[k] for k in _NEWS)

    def claim(self) -> None:
        """Write run.json if this is the first night, and move damaged files out of the way of what is computed."""
        both = self.plan.ledger
        establish(self.plan)
        self.plan.ledger = both
        self.incoming.set_aside(self.store)

    def counts(self) -> dict[str, int]:
        """Shards in all, new, changed, gone, and not whole yet, as they are found."""
        keys = {key_of(i) for i in self.masks.shards}
        shards, before = self.plan.job.shards, Overlaps(keys)
        now = Overlaps(s.key for s in shards)
        lacking = [s for s in shards if not self.masks.committed(s.id).complete]
        changed = sum(s.key in before and s.id not in self.masks.shards for s in lacking)
        return {
            "total": len(shards),
            "new": len(lacking) - changed,
            "changed": changed,
            "removed": sum(key not in now for key in keys),
            "left": sum(not self.plan.ledger.committed(s.id).complete for s in shards),
        }

    def vanished(self) -> dict[str, tuple[int, int]]:
        """How many of the current shards and loose images are gone from the input, and of how many.

        Shards of loose images come and go as these do: they are compared by the number of images in all of them.
        """
        leaves = [i for i in self.masks.shards if bits_of(key_of(i)) is not None]
        keys = {key_of(i) for i in self.masks.shards.keys() - set(leaves)}
        found = {"shards": (len(keys - {s.key for s in self.plan.job.shards}), len(keys))}
        if leaves:
            images = self._records(leaves)
            listed = sum(s.records or 0 for s in self.plan.job.shards if bits_of(s.key) is not None)
            found["loose images"] = (max(0, images - listed), images)
        return found

    def _records(self, shard_ids: Collection[str]) -> int:
        """Current records of shards: by the catalog, else by the receipts of their files."""
        known = {row.shard_id: row.records for row in self.catalog.values()}
        unknown = [n for i in shard_ids if i not in known for n in self.masks.committed(i).filenames(i)]
        receipts = self.plan.inventory.receipts(unknown)
        return sum(known.get(i, 0) for i in shard_ids) + sum(r.totals.records for r in receipts)


def prepare(job: JobSpec, max_removed: float, look: bool = False) -> Work:
    """List inputs and output. Raises ``SegbatchError`` for what cannot be run, before any work.

    A promotion that a crash interrupted is completed first, unless this is only a ``look``.
    """
    store = Store(job.output, job.storage_options)
    if not look:
        complete_promotion(store)
    plan = make_plan(job)
    masks, incoming = plan.ledger, Inventory.take(store, plan.record.claim, FileTable(), INCOMING)
    plan.ledger = Ledger([*masks.filenames(), *incoming.ledger.filenames()])
    found = Work(plan, masks, incoming, read_catalog(store))
    for what, (gone, total) in found.vanished().items():
        if gone > max_removed * total:
            raise PlanError(
                f"{store.uri}: {gone:,} of its {total:,} {what} are gone from the inputs, a larger share than "
                f"max_removed = {max_removed:g}; nothing is done. If that was meant, raise max_removed for one night"
            )
    return found


def work(found: Work, reporter: Reporter, should_stop: Callable[[], bool]) -> None:
    """Compute what is left into ``incoming/``, until it is done or ``should_stop``."""
    plan = found.plan
    if plan.complete:
        return
    logs = Logs.of(plan.job.spec.log_format, plan.job.spec.storage_options)
    with logs.installed(), cluster(plan.job.spec) as hardware:
        plan.fix_chunk_size(hardware.cpus)
        found.claim()
        compute(plan, hardware, found.tally, reporter, logs, INCOMING, should_stop)


def promote(found: Work, date: str, lease: Lease, seconds: float) -> DatasetReport:
    """Make current what is whole, whatever became of the rest, and sum up. Raises ``LeaseLost`` before any change."""
    store, plan = found.store, found.plan
    claim, shards = plan.record.claim, plan.job.shards
    masks = plan.inventory.again(store, claim)
    incoming = found.incoming.again(store, claim, found.tally.written.table())
    promotion = plan_promotion(shards, masks.ledger, incoming.ledger, date)
    after = Ledger([*(set(masks.ledger.filenames()) - set(promotion.retire)), *promotion.promote])
    whole = [s for s in shards if after.committed(s.id).complete]
    rows = found.catalog
    before = dict(rows)
    arrived = {key_of(_shard_id(n)) for n in promotion.promote}
    _enter(found, [s for s in whole if _is_news(s, rows)], arrived, masks, incoming, date)
    for name in rows.keys() - {s.name for s in shards}:
        if rows[name].shard_id not in after.shards:
            rows[name] = rows[name].model_copy(update={"removed": rows[name].removed or date})
    lease.renew()
    changed = before != rows
    if promotion or changed:
        claim.check(store)
    # The catalog first: a promotion that is interrupted is completed, while a night that is not entered is forgotten.
    if changed:
        write_catalog(store, rows)
    apply_promotion(store, promotion)
    done = len(whole) == len(shards)
    plan.inventory = masks.again(store, claim, incoming.files.untagged()) if promotion else masks
    note_latest(plan)
    settle_files(plan)
    sums = _sums(found, plan.inventory)
    if promotion or done != (plan.record.state == "done" and store.exists(SUCCESS)):
        plan.record = plan.record.changed(
            skipped=SkippedInputs(files=plan.job.skipped, members=plan.record.skipped.members)
        )
        plan.record = close(store, plan.record, sums, len(found.tally.filenames), seconds, done)
    return _entry(found, date, sums, len(shards) - len(whole), done)


def _is_news(shard: Shard, rows: dict[str, ShardRow]) -> bool:
    row = rows.get(shard.name)
    return row is None or row.removed is not None or row.shard_id != shard.id


def _enter(found: Work, news: list[Shard], arrived: set[str], masks: Inventory, incoming: Inventory, date: str) -> None:
    """Enter shards that are whole into the catalog, with their sums."""
    before = Overlaps(key_of(i) for i in masks.ledger.shards)
    sums = _read_sums(found, {s.id for s in news}, incoming, masks)
    for shard in news:
        row, total = found.catalog.get(shard.name), sums[shard.id]
        known = row is not None and row.removed is None
        changed = known or (shard.key in before and shard.id not in masks.ledger.shards)
        # What a plain `segbatch run` left is current, and of no night.
        night = date if shard.key in arrived or row is not None else ""
        found.catalog[shard.name] = ShardRow(
            name=shard.name,
            uri=shown_uri(shard.uri),
            shard_id=shard.id,
            night=night,
            change="changed" if changed else "new",
            records=total.totals.records,
            errors=total.totals.failed,
            sums=ShardSums(totals=total.totals.sparse(), bytes=total.size, skipped=total.skipped),
        )


def _read_sums(found: Work, ids: set[str], *folders: Inventory) -> dict[str, Tally]:
    """Sums of shards by the receipts of their files, in whichever folder these are."""
    sums = {i: Tally(found.tally.num_classes) for i in ids}
    for folder in folders:
        chunks = [name for i in sorted(ids) for name in folder.ledger.committed(i).filenames(i)]
        for receipt in folder.receipts(chunks):
            sums[_shard_id(receipt.filename)].add(receipt)
    return sums


def _sums(found: Work, masks: Inventory) -> Tally:
    """Sums of all current shards: those of the catalog, and read anew where it has none."""
    current = set(masks.ledger.shards)
    by_id = {row.shard_id: row for row in found.catalog.values() if row.removed is None}
    total = Tally(found.tally.num_classes)
    for tally in _read_sums(found, current - by_id.keys(), masks).values():
        total.add_sums(tally.totals, {}, tally.size, tally.skipped)
    for shard_id in current & by_id.keys():
        sums = by_id[shard_id].sums
        total.add_sums(sums.totals.expand(total.num_classes), {}, sums.bytes, sums.skipped)
    total.filenames.update(masks.ledger.filenames())
    total.timings = found.tally.timings
    return total


def _entry(found: Work, date: str, sums: Tally, left: int, done: bool) -> DatasetReport:
    rows, labels = list(found.catalog.values()), found.plan.job.model.labels
    now = Overlaps(s.key for s in found.plan.job.shards)
    tonight = {
        "new": [r for r in rows if r.night == date and r.removed is None and r.change == "new"],
        "changed": [r for r in rows if r.night == date and r.removed is None and r.change == "changed"],
        # A leaf of loose images that was split or merged is not gone.
        "removed": [r for r in rows if r.removed == date and key_of(r.shard_id) not in now],
    }
    content = Content(Totals(len(labels)))
    for row in tonight["new"] + tonight["changed"]:
        content.totals.add(row.sums.totals.expand(len(labels)))
    content.confidence = _confidences(found.store, {r.shard_id for r in tonight["new"] + tonight["changed"]})
    return DatasetReport(
        output=found.store.uri,
        state="done" if done else "stopped",
        shards={"total": len(found.plan.job.shards), **{k: len(v) for k, v in tonight.items()}, "left": left},
        names={k: sorted(r.name for r in v)[:_MAX_NAMES] for k, v in tonight.items()},
        model=_model(found.plan.record.identity),
        classes=list(labels.names),
        totals=content.totals.sparse(),
        confidence=content.confidence.tolist(),
        current={
            "records": sums.totals.records,
            "errors": sums.totals.failed,
            "failed_shards": sums.totals.failed_shards,
        },
    )


def _confidences(store: Store, ids: set[str]) -> np.ndarray:
    """Histogram of the image confidences in the masks of shards; the one column is read, not the masks."""
    if not ids:
        return histogram(np.zeros(0))
    ledger = Ledger.read(store)
    wanted = {n for i in ids for n in ledger.committed(i).filenames(i)}

    def read(name: str) -> np.ndarray:
        if name in wanted:
            columns = [ResultFile(name).read(store, ["confidence"])["confidence"]]
        else:
            columns = [rows["confidence"] for r, rows in read_file(store, name) if r.filename in wanted]
        return np.sum([histogram(c.drop_null().to_numpy()) for c in columns], axis=0)

    with ThreadPoolExecutor(_READERS) as pool:
        return np.sum(list(pool.map(read, sorted({ledger.holder(n) for n in wanted}))), axis=0)


def _model(identity: dict[str, Any]) -> str:
    """What decides the rows but for the corpus: nights are compared if it is the same."""
    return digest(json.dumps({**identity, "root": None}, sort_keys=True), length=16)


def _shard_id(filename: str) -> str:
    chunk = ChunkId.parse(filename)
    assert chunk is not None
    return chunk.shard_id
