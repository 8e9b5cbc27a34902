"""One output: the only owner of its layout, run.json, ledger, commits, promotion, retirement and _SUCCESS."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segbatch.errors import SHARD_FAILURES, OutputError, PlanError
from segbatch.output import closing, compaction, owned, previews, promotion
from segbatch.output.catalog import ShardRow, read_catalog
from segbatch.output.file_table import FileTable
from segbatch.output.inventory import Inventory, set_aside
from segbatch.output.layout import MASKS, RUN, STAGED, SUCCESS
from segbatch.output.ledger import Ledger
from segbatch.output.result_file import ResultFile, read_footers
from segbatch.output.run_record import Claim, RunRecord
from segbatch.output.sums import ReceiptSums
from segbatch.output.totals import Totals
from segbatch.output.writer import Writer
from segbatch.protocols import Reporter
from segbatch.records import Preview, Shard
from segbatch.skipped import Skipped
from segbatch.storage.store import Store

_MAX_FAILED_SHARDS = 20


class Output:
    """The results of one job, on any store.

    Attributes:
        store: Its root; messages show ``uri``, which is redacted.
        files: The result files in ``masks/``, as they were last listed by ``load`` or ``refresh``.
        staged: Those in the staging area of nightly runs.
    """

    def __init__(self, store: Store, record: RunRecord | None = None) -> None:
        self.store, self._record = store, record
        self.files, self.staged = Inventory(), Inventory(folder=STAGED)

    @staticmethod
    def at(uri: str, storage_options: Mapping[str, Any] | None = None) -> Output:
        """Return the output at a folder or prefix, which a job may not have written to yet.

        Raises:
            PlanError: There is a run.json that segbatch did not write.
        """
        store = Store(uri, dict(storage_options or {}))
        return Output(store, RunRecord.read(store))

    @staticmethod
    def open(uri: str, storage_options: Mapping[str, Any] | None = None) -> Output:
        """Open the output that a run has written into a folder or prefix, finished or not.

        Raises:
            PlanError: The folder holds no run.json, or one that segbatch did not write.
        """
        store = Store(uri, dict(storage_options or {}))
        return Output(store, RunRecord.need(store))

    @staticmethod
    def is_at(uri: str, storage_options: Mapping[str, Any] | None = None) -> bool:
        """Whether a folder or prefix has a run.json; it is not read."""
        return Store(uri, dict(storage_options or {})).exists(RUN)

    def __repr__(self) -> str:
        return f"Output({self.uri!r})"

    @property
    def uri(self) -> str:
        """Where it is, redacted."""
        return self.store.uri

    @property
    def exists(self) -> bool:
        """Whether a job has joined it: it had a run.json when that was last read or written."""
        return self._record is not None

    @property
    def record(self) -> RunRecord:
        """The content of run.json, as last read or written."""
        if self._record is None:
            raise PlanError(f"{self.uri}: no job has written {RUN} yet; run `segbatch run` with this --output first")
        return self._record

    @property
    def claim(self) -> Claim:
        """Which job it belongs to."""
        return self.record.claim

    @property
    def is_finished(self) -> bool:
        """Whether its last run is published: ``done`` in run.json, and ``_SUCCESS`` exists."""
        return self.record.state == "done" and self.store.exists(SUCCESS)

    @staticmethod
    def path_of(file: str) -> str:
        """Return the path of a result file below the root, for messages."""
        return f"{MASKS}/{file}"

    # What it holds

    def ledger(self, damaged: dict[str, OutputError] | None = None) -> Ledger:
        """List the committed chunks.

        Args:
            damaged: Receives each merged file that cannot be read, with the reason, instead of an ``OutputError``.
        """
        return Ledger.read(self.store, damaged)

    def load(self, staged: bool = False) -> None:
        """List the result files, and examine those that changed since they were last recorded."""
        self.files = Inventory.of_job(self.store, self.claim)
        if staged:
            self.staged = Inventory.take(self.store, self.claim, FileTable(), STAGED)

    def refresh(self, written: FileTable | None = None) -> None:
        """List the result files again, after this process has ``written`` some."""
        self.files = self.files.refreshed(self.store, self.claim, written)

    def refresh_staged(self, written: FileTable) -> None:
        """List the staging area again, after this process has ``written`` some files there."""
        self.staged = self.staged.refreshed(self.store, self.claim, written)

    def catalog(self) -> dict[str, ShardRow]:
        """Read the shards of nightly runs, by name; none for an output without nightly runs."""
        return read_catalog(self.store)

    def batches(
        self,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        *,
        files: Sequence[ResultFile] | None = None,
        has: Callable[[Totals], int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Read every committed row once, in order of the files and of the rows in them.

        Holds one batch at a time: of a chunk's file all of its rows, of a merged file up to 1,024.

        Args:
            columns: Columns of ``output.schema`` to read; all of them unless given.
            where: Rows to keep, as an expression over ``columns``.
            files: The files to read, as a ledger lists them; those that are listed now unless given.
            has: Skips files by their footers, without reading rows: those for none of whose chunks it is positive.

        Raises:
            OutputError: A file cannot be read, or is gone since it was listed.
        """
        files = self.ledger().files() if files is None else files
        for file in files if has is None else self._having(files, has):
            for batch in file.batches(self.store, columns):
                kept = batch if where is None else batch.filter(where)
                if kept.num_rows:
                    yield kept

    def _having(self, files: Sequence[ResultFile], has: Callable[[Totals], int]) -> Iterator[ResultFile]:
        by_name = {file.name: file for file in files}
        for name, receipts in read_footers(self.store, list(by_name)):
            if any(has(receipt.totals) for receipt in receipts):
                yield by_name[name]

    def previews(self) -> list[Preview]:
        """Read the previews of committed images, in random order; each prefix is a random sample of the corpus.

        After a run there are up to ``JobSpec.report_samples``, before its end some more; none in outputs of format 1.0.
        """
        return previews.read(self.store, self.claim, frozenset(self.ledger(damaged={}).filenames()))

    def gather_previews(self, count: int) -> None:
        """Keep the previews of ``count`` images, drawn at random from the files that were last listed."""
        previews.gather(self.store, self.claim, frozenset(self.files.ledger.filenames()), count)

    def damaged(self) -> list[str]:
        """Return the damaged files that were found when files were last listed, each with what is wrong with it."""
        return [f"{MASKS}/{name}: {problem}" for name, problem in self.files.damaged.items()]

    def failed_shards(self) -> list[str]:
        """Return why the first shards failed as a whole, one message each, from the files that were last listed."""
        ledger = self.files.ledger
        failed = [r.filename for r in self.files.receipts(ledger.filenames()) if r.totals.failed_shards]
        is_shard_failure = pc.field("error", "type").isin(sorted(SHARD_FAILURES))
        batches = self.batches(["error"], is_shard_failure, files=ledger.files(failed))
        messages = (error["message"] for batch in batches for error in batch["error"].to_pylist())
        return list(itertools.islice(messages, _MAX_FAILED_SHARDS))

    # Writing

    def unpublish(self) -> None:
        """Delete ``_SUCCESS``, before anything else changes."""
        self.store.remove(SUCCESS)

    def refuse_foreign(self, overwrite: bool) -> None:
        """Raise ``PlanError`` if a job must not write here.

        That is a folder without run.json whose files, not written by segbatch, have names that the job would write,
        and one with result files whose job is unknown, unless ``overwrite``.
        """
        if not self.exists:
            owned.refuse_foreign(self.store, overwrite)

    def join(self, record: RunRecord, *, overwrite: bool = False) -> bool:
        """Write run.json before any work, exactly once.

        Args:
            record: Its content.
            overwrite: Replace an existing run.json, and then delete what segbatch wrote: a job that still runs here
                commits nothing more.

        Returns:
            False if another job was first: its run.json is kept.
        """
        if overwrite:
            self.store.remove(SUCCESS)
            self.store.write(RUN, record.to_bytes())
            owned.delete(self.store, owned.owned(self.store))
        elif not self.store.create(RUN, record.to_bytes()):
            return False
        self._record = record
        return True

    def update(self, **fields: Any) -> None:
        """Change fields of run.json; unchanged ones are not written. Raises ``OutputTaken``."""
        record = self.record.changed(**fields)
        if record != self.record:
            self.claim.check(self.store)
            self.write_record(record)

    def write_record(self, record: RunRecord) -> None:
        """Replace run.json by a record of the same job."""
        self.store.write(RUN, record.to_bytes())
        self._record = record

    def begin(self, recomputed: Collection[str] = ()) -> None:
        """Prepare for commits: damaged files and chunks to be ``recomputed`` leave ``masks/``, and so does _SUCCESS."""
        self.clean()
        self.unpublish()
        self.claim.check(self.store)
        if recomputed:
            rows = compaction.retire(self.store, self.files.ledger, sorted(recomputed), self.claim)
            self.refresh(FileTable.of(rows))

    def clean(self) -> None:
        """Set damaged files aside, and record the others, so that the next run need not read them."""
        if self.files.damaged or not self.files.is_saved:
            self.claim.check(self.store)
            self.files.set_aside(self.store)
            self.files.save(self.store, self.claim)
        self.staged.set_aside(self.store)

    def writer(self, staged: bool = False) -> Writer:
        """Return what commits chunks, into ``masks/`` or into the staging area. Picklable."""
        return Writer(self.store, self.claim, STAGED if staged else MASKS)

    def committed_names(self, staged: bool = False) -> list[str]:
        """List the files that workers have written by now, in ``masks/`` or in the staging area."""
        return self.store.names(STAGED if staged else MASKS)

    def finish(
        self, shards: Sequence[Shard], receipt_sums: ReceiptSums, skipped: Skipped, seconds: float, samples: int
    ) -> int:
        """See ``output.closing.finish``."""
        return closing.finish(self, shards, receipt_sums, skipped, seconds, samples)

    def complete_promotion(self) -> bool:
        """Apply the promotion that a crash has interrupted, if there is one."""
        return promotion.complete_promotion(self.store)

    def promote(
        self,
        shards: Sequence[Shard],
        date: str,
        receipt_sums: ReceiptSums,
        catalog: dict[str, ShardRow],
        confirm: Callable[[], None],
    ) -> promotion.Promoted:
        """See ``output.promotion.promote``."""
        return promotion.promote(self, shards, date, receipt_sums, catalog, confirm)

    def compact(self, target_bytes: int, reporter: Reporter | None = None) -> compaction.Compaction:
        """See ``output.compaction.compact``."""
        return compaction.compact(self, target_bytes, reporter or Reporter())

    def set_aside(self, files: Mapping[str, Collection[str]]) -> Iterator[str]:
        """Move files out of ``masks/``, keep the undamaged chunks of each in a new file, and remove superseded rows.

        Args:
            files: Of each file its damaged chunks; none if nothing of it can be used.

        Yields:
            What was done with a file, for people.
        """
        ledger = self.ledger(damaged={})
        for name, damaged in files.items():
            kept = ""
            if damaged:
                rows = compaction.merge(self.store, ledger, [name], self.claim, without=frozenset(damaged))
                kept = f"; its undamaged chunks are in {MASKS}/{rows[0].name}" if rows else ""
            (target,) = set_aside(self.store, [name]).values()
            yield f"{MASKS}/{name}: moved to {target.removesuffix(name)}{kept}"
        compaction.remove_superseded(self.store, self.ledger(), self.claim)

    def describe_clear(self) -> list[str]:
        """Return what ``join`` with overwrite would delete, one line per kind with the first names."""
        return owned.describe(self.store)

    def delete_retired(self, before: str) -> None:
        """Delete the result files that nightly runs of the dates before ``before`` have retired."""
        owned.delete(self.store, {"retired": owned.retired(self.store, before)})
