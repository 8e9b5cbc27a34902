"""Verify an output from its files alone: complete, undamaged, with true statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from segbatch.codecs import mask_png as png
from segbatch.errors import SHARD_FAILURES, OutputError
from segbatch.operations.verify_input import InputCheck
from segbatch.output.check import chunk_problems
from segbatch.output.consistency import (
    ALTERED,
    ledger_problems,
    recorded_digests,
    skipped_problems,
    statistics_problems,
)
from segbatch.output.file_table import DamagedTable
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.receipt import Receipt
from segbatch.output.result_file import read_file, read_whole
from segbatch.output.run_record import RunRecord
from segbatch.output.totals import Totals
from segbatch.records import ClassCount
from segbatch.skipped import Skipped
from segbatch.storage.store import Store

_MAX_PROBLEMS = 50
_READERS = 4


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        files: Number of result files that were read.
        records: Number of rows.
        masks: Number of masks that were decoded.
        errors: Number of error rows.
        against: What the output was compared with, for people.
        skipped: What the inputs hold besides records.
        problems: The first problems, one line each.
        more: Number of further problems.
        damaged: Damaged files, each with its damaged chunks; with none if nothing of the file can be used.
        extraneous: Files in ``masks/`` that segbatch did not write.
    """

    files: int
    records: int
    masks: int
    errors: int
    against: str
    skipped: Skipped
    problems: list[str]
    more: int
    damaged: dict[str, set[str]]
    extraneous: list[str]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data, documented in docs/operate.md."""
        return {
            "verified": self.ok,
            "files": self.files,
            "records": self.records,
            "masks": self.masks,
            "errors": self.errors,
            "against": self.against,
            "skipped": self.skipped.to_json(),
            "problems": self.problems,
            "more_problems": self.more,
            "damaged": {file: sorted(chunks) for file, chunks in self.damaged.items()},
            "extraneous": self.extraneous,
        }


class Report:
    """Collects the problems of an output while it is verified."""

    def __init__(self) -> None:
        self.files = 0
        self.against = ""
        self.problems: list[str] = []
        self.more = 0
        self.damaged: dict[str, set[str]] = {}
        self.extraneous: list[str] = []
        self.altered: list[str] = []  # files whose bytes are not those that the last run recorded

    def add_problem(self, problem: str) -> None:
        """Add a problem; beyond a limit problems are only counted."""
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1

    def mark_damaged(self, file: str, chunk: str | None, problem: str) -> None:
        """Add a problem with a chunk in ``file``, or with the whole file."""
        self.add_problem(f"{Output.path_of(file)}: {problem}")
        if chunk is None:
            self.damaged[file] = set()
        elif self.damaged.get(file) != set():
            self.damaged.setdefault(file, set()).add(chunk)

    def result(self, totals: Totals, skipped: Skipped) -> Verification:
        """Return the result, with sums over all rows."""
        return Verification(
            files=self.files,
            records=totals.records,
            masks=totals.records - totals.failed,
            errors=totals.failed,
            against=self.against,
            skipped=skipped,
            problems=self.problems,
            more=self.more,
            damaged=self.damaged,
            extraneous=self.extraneous,
        )


@dataclass
class _Chunk:
    """One chunk as it was read.

    Attributes:
        name: Name of its file, before any compaction.
        file: The file that holds it.
        hashes: Of its image ids, uint64 (N,).
        totals: Sums over its rows, counted again.
        skipped: As its receipt has it.
        failed_shards: Messages of error rows with which a shard ends that failed as a whole.
        problems: What is wrong with its rows.
    """

    name: str
    file: str
    hashes: np.ndarray
    totals: Totals
    skipped: Skipped
    failed_shards: list[str]
    problems: list[str]


def verify(
    output: str,
    *,
    inputs: list[str] | None = None,
    read_input: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> Verification:
    """Read every file, decode every mask, count every class again, and compare the shards with the inputs.

    Memory: 8 bytes per record, and the largest files.

    Args:
        output: The folder or prefix that was ``--output`` of a run.
        inputs: Where the inputs are now; by default where the run had them.
        read_input: Read the inputs, too: their ids, and what is skipped within shards, are compared chunk by chunk.
        storage_options: Passed to fsspec.

    Raises:
        SegbatchError: Output or inputs cannot be found or listed. Problems with the content are in the report.
    """
    opened = Output.open(output, storage_options)
    record, report = opened.record, Report()
    ledger = _list(opened, report)
    chunks = list(_read(opened.store, record, ledger, _digests(opened, report), report))
    totals = Totals(len(record.classes))
    for chunk in chunks:
        totals.add(chunk.totals)
    _check_unique(report, opened.store, chunks)
    members = Skipped.merged(*(c.skipped for c in chunks))
    failed_shards = (f"a shard failed: {message}" for chunk in chunks for message in chunk.failed_shards)
    for problem in (*failed_shards, *statistics_problems(opened, totals), *skipped_problems(record, members)):
        report.add_problem(problem)
    InputCheck(report, record, ledger, {c.name: c for c in chunks}).run(inputs, storage_options, read_input)
    for name in report.altered:
        if name not in report.damaged:  # otherwise its damaged chunks are known
            report.mark_damaged(name, None, ALTERED)
    return report.result(totals, Skipped.merged(record.skipped.files, members))


def _list(output: Output, report: Report) -> Ledger:
    """List the committed chunks, and report files that are extraneous or cannot be read."""
    damaged: dict[str, OutputError] = {}
    ledger = output.ledger(damaged)
    for name, error in damaged.items():
        report.mark_damaged(name, None, _without_place(error, name))
    for problem in ledger_problems(ledger):
        report.add_problem(problem)
    report.extraneous += ledger.foreign
    return ledger


def _digests(output: Output, report: Report) -> dict[str, str]:
    """Return the digests that the last run recorded, and report if they cannot be read."""
    try:
        return recorded_digests(output)
    except DamagedTable as e:
        report.add_problem(str(e).rpartition(f"{output.uri}/")[2])
        return {}


def _read(store: Store, record: RunRecord, ledger: Ledger, digests: dict[str, str], report: Report) -> Iterator[_Chunk]:
    """Yield every current chunk, and report what is wrong with it."""
    names = [file.name for file in ledger.files()]

    def one(name: str) -> tuple[str, list[_Chunk], OutputError | None]:
        try:
            digest, rows_by_receipt = read_whole(store, name)
        except OutputError as e:
            return "", [], e
        counted = [(receipt, rows) for receipt, rows in rows_by_receipt if ledger.file_of(receipt.filename) == name]
        return digest, [_check_chunk(name, receipt, rows, record) for receipt, rows in counted], None

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), 256):
            batch = names[start : start + 256]
            for name, (digest, chunks, error) in zip(batch, pool.map(one, batch), strict=True):
                report.files += 1
                if error is not None:
                    report.mark_damaged(name, None, _without_place(error, name))
                    continue
                if not chunks:
                    report.mark_damaged(name, None, "holds another chunk than its name says")
                for chunk in chunks:
                    for problem in chunk.problems:
                        report.mark_damaged(name, chunk.name, problem)
                if digests and digests.get(name) != digest:
                    report.altered.append(name)
                yield from chunks


def _without_place(error: OutputError, name: str) -> str:
    return str(error).rpartition(f"{Output.path_of(name)}: ")[2]


def _check_chunk(file: str, receipt: Receipt, table: pa.Table, record: RunRecord) -> _Chunk:
    totals = Totals(len(record.classes))
    problems = chunk_problems(receipt, table, record.claim)
    failed: list[str] = []
    for batch in table.to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            if (row["error"] or {}).get("type") in SHARD_FAILURES:
                failed.append(row["error"]["message"])
            problem = _check_row(row, totals)
            if problem:
                problems.append(f"{row['image_id']}: {problem}")
    if totals != receipt.totals:
        problems.append(f"{receipt.filename}: the sums in the footer are not those of the rows")
    return _Chunk(
        receipt.filename, file, _hashes(table["image_id"].to_pylist()), totals, receipt.skipped, failed, problems
    )


def _check_row(row: dict[str, Any], totals: Totals) -> str | None:
    """Add a row to ``totals``; return what is wrong with it, if anything."""
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


def _hashes(image_ids: Iterable[str]) -> np.ndarray:
    """Return 64 bits of each id, uint64 (N,)."""
    data = b"".join(hashlib.blake2b(i.encode("utf-8", "replace"), digest_size=8).digest() for i in image_ids)
    return np.frombuffer(data, "<u8")


def _check_unique(report: Report, store: Store, chunks: list[_Chunk]) -> None:
    hashes = np.sort(np.concatenate([c.hashes for c in chunks])) if chunks else np.zeros(0, np.uint64)
    duplicates = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(duplicates):
        return
    chunks_by_id: dict[str, list[_Chunk]] = {}
    for chunk in chunks:
        if np.isin(chunk.hashes, duplicates).any():
            rows = next(rows for receipt, rows in read_file(store, chunk.file) if receipt.filename == chunk.name)
            for image_id in rows["image_id"].to_pylist():
                chunks_by_id.setdefault(image_id, []).append(chunk)
    for image_id, holding in chunks_by_id.items():
        for chunk in holding if len(holding) > 1 else ():
            report.mark_damaged(chunk.file, chunk.name, f"{image_id}: occurs {len(holding)} times")
