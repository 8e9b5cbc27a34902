"""Comparison of an output with its inputs: every record exactly once, everything else counted as skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from segbatch.errors import SourceError
from segbatch.output.consistency import skipped_files_problems
from segbatch.output.ledger import Ledger
from segbatch.output.reconcile import missing, stale
from segbatch.output.run_record import RunRecord
from segbatch.planning.recorded import SHARD_NAMES_SINCE, list_recorded
from segbatch.records import Chunk, Shard
from segbatch.skipped import Skipped
from segbatch.sources import Source, divided
from segbatch.sources.unique_ids import id_hashes
from segbatch.storage.outputs import REASON as OUTPUTS
from segbatch.storage.walk import FOLDER
from segbatch.text import counted

if TYPE_CHECKING:
    from segbatch.operations.verify import Report


class Committed(Protocol):
    """A committed chunk.

    Attributes:
        hashes: Hashes of its image ids in order, uint64 (N,).
        skipped: What its receipt counts as skipped.
    """

    hashes: np.ndarray
    skipped: Skipped


@dataclass
class InputCheck:
    """Compares an output with its inputs, and adds the differences to a report.

    Attributes:
        chunks: Committed chunks that could be read, by file name.
    """

    report: Report
    record: RunRecord
    ledger: Ledger
    chunks: Mapping[str, Committed]

    def run(self, inputs: list[str] | None, storage_options: dict[str, Any] | None, read_input: bool) -> None:
        """Compare shards and their numbers of records, and with ``read_input`` the id of each record.

        Args:
            inputs: Where the inputs are now; None for those of the run.

        Raises:
            SegbatchError: The inputs cannot be listed, or their store becomes unavailable.
        """
        if self.record.rows_version < SHARD_NAMES_SINCE:
            self.report.against = (
                f"not compared with the input: it has rows version {self.record.rows_version}, whose shards have other "
                f"names than since version {SHARD_NAMES_SINCE}"
            )
            return
        source, corpus = list_recorded(self.record, inputs, storage_options)
        shards = divided(corpus.shards, self.record.chunk_size)
        self._check_listing(shards, corpus.skipped)
        records, members = 0, 0
        for shard in shards:
            names = list(self.ledger.committed(shard.id).filenames(shard.id))
            if not self.ledger.committed(shard.id).is_complete or not all(name in self.chunks for name in names):
                continue  # is a problem already
            committed = {name: self.chunks[name] for name in names}
            self._check_count(shard, committed)
            if read_input:
                comparison = _Comparison(self.report, self.ledger, shard, committed)
                comparison.read(source, self.record.chunk_size)
                records, members = records + comparison.records, members + comparison.skipped
        self.report.against = f"compared with {len(shards):,} input shards"
        if read_input:
            self.report.against += f", all {counted(records, 'record')} read"
            self.report.against += f" and {members:,} members that are not records" if members else ""

    def _check_listing(self, shards: Sequence[Shard], skipped: Skipped) -> None:
        for problem in missing(shards, self.ledger):
            self.report.add_problem(problem)
        for name in stale(shards, self.ledger):
            self.report.add_problem(f"{name}: its shard is not in the input, or has changed since; run the job again")
        # Outputs and folders are not files: this output may lie below its input, where it was not when its run started.
        for problem in skipped_files_problems(self.record, skipped, (OUTPUTS, FOLDER)):
            self.report.add_problem(problem)

    def _check_count(self, shard: Shard, committed: Mapping[str, Committed]) -> None:
        total = sum(len(chunk.hashes) for chunk in committed.values())
        if shard.records is not None and total != shard.records:
            self.report.add_problem(
                f"{shard.name}: {counted(shard.records, 'record')} in the input, {counted(total, 'row')} in the output"
            )
            for name in committed:
                self.report.damaged.setdefault(self.ledger.file_of(name), set()).add(name)


class _Comparison:
    """Reads one shard again and compares it with its committed chunks. Holds one chunk of the input at a time."""

    def __init__(self, report: Report, ledger: Ledger, shard: Shard, committed: dict[str, Committed]) -> None:
        self._report, self._ledger, self._shard = report, ledger, shard
        self._missing = committed
        self.records = self.skipped = 0

    def read(self, source: Source, chunk_size: int) -> None:
        """Add the differences to the report, or that the shard cannot be read."""
        try:
            for chunk in source.chunks(self._shard, chunk_size):
                self._compare(chunk)
        except SourceError as e:
            self._report.add_problem(f"{self._shard.name}: cannot be compared with its input: {e}")
            return
        for name in self._missing:
            self._mark_damaged(name, f"{name}: its input ends before it")

    def _compare(self, chunk: Chunk) -> None:
        self.records += len(chunk.records)
        self.skipped += chunk.skipped.count
        name = chunk.id.filename
        committed = self._missing.pop(name, None)
        if committed is None:
            self._report.add_problem(
                f"{self._shard.name}: chunk {chunk.id.index} of its input ({name}) is not in the output"
            )
            return
        expected = id_hashes(record.image_id for record in chunk.records)
        if not np.array_equal(expected, committed.hashes):
            self._mark_damaged(name, f"{name}: its ids are not those of its input")
        if chunk.skipped != committed.skipped:
            now, before = chunk.skipped.count, committed.skipped.count
            self._mark_damaged(
                name, f"{name}: {now:,} members of its input are skipped, {before:,} or others by its receipt"
            )

    def _mark_damaged(self, name: str, problem: str) -> None:
        self._report.mark_damaged(self._ledger.file_of(name), name, problem)
