"""Proof, from the files alone, that an output is whole and its statistics are true."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.encodings import png
from segbatch.errors import OutputError
from segbatch.metrics.pixels import ClassCount, Totals
from segbatch.output.ledger import Ledger, read_receipt
from segbatch.output.run_record import SUCCESS, RunRecord
from segbatch.output.schema import SCHEMA
from segbatch.output.stats import class_rows, read_classes
from segbatch.output.store import Store
from segbatch.output.writer import MASKS
from segbatch.runtime.planning import missing, open_inputs, stale
from segbatch.spec import JobSpec

_MOST_PROBLEMS = 50
_READERS = 4


@dataclass
class Report:
    """What was read, and what was found wrong."""

    files: int = 0
    records: int = 0
    masks: int = 0
    errors: int = 0
    against: str = ""
    problems: list[str] = field(default_factory=list)
    more: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems

    def wrong(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1


@dataclass
class _File:
    """What one result file holds: hashes of its image ids, the sums of its rows, what is wrong with it."""

    hashes: np.ndarray
    totals: Totals
    problems: list[str]


def verify(output: str, inputs: list[str] | None = None, storage_options: dict[str, Any] | None = None) -> Report:
    """Read every file, decode every mask, recount every class, and hold the shards against the input.

    ``inputs`` are those of the run unless given. Raises ``SegbatchError`` if output or input cannot be found;
    what is wrong with the content is in the report. Memory: 8 bytes a record.
    """
    store = Store(output, storage_options)
    record = RunRecord.need(store)
    ledger = Ledger.read(store)
    report = Report()
    for name in ledger.foreign:
        report.wrong(f"{MASKS}/{name}: not a name that segbatch gives; move it out of {MASKS}/")
    totals = Totals(len(record.classes))
    names = sorted(ledger.filenames())
    hashes = []
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), 256):
            for found in pool.map(lambda n: _read_file(store, n, record), names[start : start + 256]):
                report.files += 1
                totals.add(found.totals)
                hashes.append(found.hashes)
                for problem in found.problems:
                    report.wrong(problem)
    report.records, report.errors = totals.records, totals.failed
    report.masks = totals.records - totals.failed
    _check_unique(report, store, names, hashes)
    _check_statistics(report, store, record, totals)
    _check_input(report, store, record, ledger, inputs, storage_options)
    return report


def _read_file(store: Store, name: str, record: RunRecord) -> _File:
    totals = Totals(len(record.classes))
    problems: list[str] = []
    hashes = np.zeros(0, np.uint64)
    try:
        receipt = read_receipt(store, name)
        table = pq.read_table(pa.BufferReader(store.read(f"{MASKS}/{name}")))
        if not table.schema.equals(SCHEMA):
            raise OutputError(f"{MASKS}/{name}: its columns are not those of a result file")
    except (OutputError, pa.ArrowException, OSError) as e:
        return _File(hashes, totals, [str(e)])
    if receipt.fingerprint != record.fingerprint:
        problems.append(f"{MASKS}/{name}: written by another job (fingerprint {receipt.fingerprint})")
    hashes = np.array([_hash(i) for i in table["image_id"].to_pylist()], np.uint64)
    for batch in table.to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            problem = _check_row(row, totals)
            if problem:
                problems.append(f"{MASKS}/{name}: {row['image_id']}: {problem}")
    if totals != receipt.totals:
        problems.append(f"{MASKS}/{name}: the sums in its footer are not those of its rows")
    return _File(hashes, totals, problems)


def _check_row(row: dict[str, Any], totals: Totals) -> str | None:
    """Adds the row to ``totals``; what is wrong with it, if anything."""
    error, data = row["error"], row["mask"]
    if (error is None) == (data is None):
        return "has both a mask and an error" if data is not None else "has neither a mask nor an error"
    if error is not None:
        totals.add_error(error["stage"], error["type"])
        return None
    counts = [ClassCount(**c) for c in row["classes"]]
    totals.add_image(counts)
    try:
        mask = png.decode(data)
    except (OSError, ValueError) as e:
        return f"its mask cannot be decoded: {e}"
    if mask.shape != (row["height"], row["width"]):
        return f"its mask is {mask.shape[0]}x{mask.shape[1]}, the image {row['height']}x{row['width']}"
    ids, pixels = np.unique(mask, return_counts=True)
    if dict(zip(ids.tolist(), pixels.tolist(), strict=True)) != {c.class_id: c.pixels for c in counts}:
        return "its class counts are not those of its mask"
    return None


def _hash(image_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "little")


def _check_unique(report: Report, store: Store, names: list[str], hashes: list[np.ndarray]) -> None:
    everything = np.sort(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)
    twice = set(everything[1:][everything[1:] == everything[:-1]].tolist())
    if not twice:
        return
    where: dict[str, list[str]] = {}
    for name, found in zip(names, hashes, strict=True):
        if not twice.isdisjoint(found.tolist()):
            for image_id in _image_ids(store, name):
                if _hash(image_id) in twice:
                    where.setdefault(image_id, []).append(name)
    for image_id, files in where.items():
        if len(files) > 1:
            report.wrong(f"{image_id}: is there {len(files)} times, in {', '.join(sorted(set(files)))}")


def _image_ids(store: Store, name: str) -> Iterable[str]:
    return pq.read_table(pa.BufferReader(store.read(f"{MASKS}/{name}")), columns=["image_id"])["image_id"].to_pylist()


def _check_statistics(report: Report, store: Store, record: RunRecord, totals: Totals) -> None:
    if record.state != "done" or not store.exists(SUCCESS):
        report.wrong("the run is not finished; give the same `segbatch run` command again")
        return
    if record.sums() != totals:
        report.wrong("run.json: its totals are not the sums of the rows; run the job again")
    try:
        published = read_classes(store)
    except (OSError, pa.ArrowException) as e:
        report.wrong(f"stats/classes.parquet: cannot be read: {e}")
        return
    if published != class_rows(totals, record.labels):
        report.wrong("stats/classes.parquet: is not what the rows add up to; run the job again")


def _check_input(
    report: Report,
    store: Store,
    record: RunRecord,
    ledger: Ledger,
    inputs: list[str] | None,
    storage_options: dict[str, Any] | None,
) -> None:
    fields = {**record.spec, "storage_options": storage_options or {}, "address": None}
    if inputs:
        fields["inputs"] = inputs
    shards = list(open_inputs(JobSpec.create(**fields)).shards())
    lacking = missing(shards, ledger)
    for problem in lacking:
        report.wrong(problem)
    for name in stale(shards, ledger):
        report.wrong(f"{MASKS}/{name}: its shard is not in the input, or has changed since; run the job again")
    for shard in shards:
        if shard.records is not None and not lacking:
            names = ledger.committed(shard.id).filenames(shard.id)
            rows = sum(read_receipt(store, n).totals.records for n in names)
            if rows != shard.records:
                report.wrong(f"{shard.name}: {shard.records} records in the input, {rows} rows in the output")
    report.against = f"held against {len(shards):,} input shards"
