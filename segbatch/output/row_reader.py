"""Read single rows of result files."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.output.layout import MASKS
from segbatch.output.result_file import ResultFile, translated
from segbatch.storage.store import Store

# A footer holds about 1.5 kB per column and row group, so these are some 60 MB at most.
_MAX_ROW_GROUPS = 4096


class RowReader:
    """Reads rows by their place, each with its row group.

    Footers are kept, those of the files that were read last; no file is kept open, so a process may be forked.
    Thread-safe. Picklable, without the footers.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forget()

    def _forget(self) -> None:
        self._footers: OrderedDict[str, tuple[int, pq.FileMetaData]] = OrderedDict()
        self._row_groups, self._lock = 0, threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_store": self._store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(
        self, file: ResultFile, positions: Sequence[int] | np.ndarray, columns: list[str] | None = None
    ) -> pa.Table:
        """Read rows of one file; each row group that holds any of them is read once.

        Args:
            file: The file.
            positions: Places among its current rows.
            columns: Columns of ``output.schema``; all unless given.

        Returns:
            The rows, in the order of ``positions``.

        Raises:
            OutputError: The file cannot be read, or is gone since it was listed.
        """
        stored = file.stored(np.asarray(positions, np.int64))
        with translated(self._store, file.name), self._store.open(f"{MASKS}/{file.name}") as f:
            opened = self._opened(file.name, f)
            sizes = _sizes(opened.metadata)
            ends = np.cumsum(sizes)
            groups = np.searchsorted(ends, stored, "right")
            parts, order = [], []
            for group in np.unique(groups):
                chosen = np.flatnonzero(groups == group)
                table = opened.read_row_group(int(group), columns=columns)
                parts.append(table.take(stored[chosen] - (ends[group] - sizes[group])))
                order.append(chosen)
        rows = pa.concat_tables(parts).replace_schema_metadata()
        return rows if len(parts) == 1 else rows.take(np.argsort(np.concatenate(order), kind="stable"))

    def row_group_sizes(self, file: ResultFile) -> list[int]:
        """Return the number of rows in each row group of a file. Raises ``OutputError`` as ``read`` does."""
        with translated(self._store, file.name), self._store.open(f"{MASKS}/{file.name}") as f:
            return _sizes(self._opened(file.name, f).metadata)

    def _opened(self, name: str, f: BinaryIO) -> pq.ParquetFile:
        size = f.seek(0, os.SEEK_END)
        with self._lock:
            known_size, footer = self._take(name)
        # A chunk that was computed again has the same name: its checksums show what its size does not.
        options = {"pre_buffer": True, "page_checksum_verification": True}
        file = pq.ParquetFile(f, metadata=footer if known_size == size else None, **options)
        with self._lock:
            self._take(name)  # of another thread
            self._footers[name] = size, file.metadata
            self._row_groups += file.metadata.num_row_groups
            while self._row_groups > _MAX_ROW_GROUPS and len(self._footers) > 1:
                self._take(next(iter(self._footers)))
        return file

    def _take(self, name: str) -> tuple[int, pq.FileMetaData | None]:
        """Remove a footer from those that are kept; return the size of its file and the footer."""
        size, footer = self._footers.pop(name, (0, None))
        self._row_groups -= footer.num_row_groups if footer is not None else 0
        return size, footer


def _sizes(footer: pq.FileMetaData) -> list[int]:
    return [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
