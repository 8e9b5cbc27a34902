"""One output: the only owner of its layout, run.json, ledger, commits, promotion and _SUCCESS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segbatch.output.ledger import Ledger
from segbatch.output.result_file import ResultFile, read_footers
from segbatch.output.run_record import RunRecord
from segbatch.output.totals import Totals
from segbatch.storage.store import Store


class Output:
    """The results of one job, on any store. Picklable; holds no connection when pickled.

    Attributes:
        store: Its root; messages show ``store.uri``, which is redacted.
        record: run.json as it was last read or written.
    """

    def __init__(self, store: Store, record: RunRecord) -> None:
        self.store, self.record = store, record

    @staticmethod
    def open(uri: str, storage_options: dict[str, Any] | None = None) -> Output:
        """Open the output that a run has written into a folder or prefix, finished or not.

        Raises:
            PlanError: The folder holds no run.json, or one that segbatch did not write.
        """
        store = Store(uri, storage_options)
        return Output(store, RunRecord.need(store))

    def ledger(self) -> Ledger:
        """List the committed chunks. Raises ``OutputError`` for a merged file that cannot be read."""
        return Ledger.read(self.store)

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
