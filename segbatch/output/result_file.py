"""Read result files: their current rows, the receipts in their footers, and whether they are damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import OutputError, StorageError
from segbatch.output.layout import MASKS
from segbatch.output.receipt import FOOTER_KEY, Receipt, digest_of, receipts_of
from segbatch.output.schema import schema
from segbatch.output.writer import SEAL_KEY, check_seal
from segbatch.storage.store import Store

_READERS = 16
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class ResultFile:
    """A result file.

    Attributes:
        name: Its name in ``masks/``.
        ranges: The rows that are not superseded, as (start, stop); None for all.
    """

    name: str
    ranges: tuple[tuple[int, int], ...] | None = None

    def batches(self, store: Store, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the current rows, up to 1,024 at a time. Raises ``OutputError`` as ``read`` does."""
        start = 0
        with translated(store, self.name), store.open(f"{MASKS}/{self.name}") as f:
            for batch in pq.ParquetFile(f, pre_buffer=True).iter_batches(_BATCH_ROWS, columns=columns):
                batch = batch.replace_schema_metadata()
                for first, stop in self.ranges or ((0, start + batch.num_rows),):
                    first, stop = max(0, first - start), min(stop - start, batch.num_rows)
                    if first < stop:
                        yield batch.slice(first, stop - first)
                start += batch.num_rows

    def stored(self, positions: np.ndarray) -> np.ndarray:
        """Return where in the file the rows at ``positions`` among the current rows are, int64 (N,)."""
        if self.ranges is None:
            return np.asarray(positions, np.int64)
        starts, stops = np.array(self.ranges, np.int64).T
        ends = np.cumsum(stops - starts)
        containing = np.searchsorted(ends, positions, "right")
        return positions + (stops - ends)[containing]

    def read(self, store: Store, columns: list[str] | None = None) -> pa.Table:
        """Read the current rows. Raises ``OutputError`` for a file that is damaged, or not a result file."""
        with translated(store, self.name), store.open(f"{MASKS}/{self.name}") as f:
            table = pq.read_table(f, columns=columns).replace_schema_metadata()
        if self.ranges is None:
            return table
        return pa.concat_tables([table.slice(0, 0), *(table.slice(a, b - a) for a, b in self.ranges)])


def read_footer(store: Store, filename: str, folder: str = MASKS) -> list[Receipt]:
    """Read the receipts of a file, in the order of its rows. Raises ``OutputError`` if it is damaged."""
    with translated(store, filename, folder), store.open(f"{folder}/{filename}") as f:
        size = f.seek(0, os.SEEK_END)
        return receipts_of((pq.read_schema(f).metadata or {})[FOOTER_KEY], size)


def read_file(store: Store, filename: str) -> list[tuple[Receipt, pa.Table]]:
    """Read every chunk of a file with its rows, and compare all checksums.

    Raises:
        OutputError: The file is damaged, or not a result file.
    """
    return read_whole(store, filename)[1]


def read_whole(store: Store, filename: str) -> tuple[str, list[tuple[Receipt, pa.Table]]]:
    """Return the digest of a file's bytes, and what ``read_file`` returns."""
    with translated(store, filename):
        data = store.read(f"{MASKS}/{filename}")
        return digest_of(data), parse_file(data)


def parse_file(data: bytes) -> list[tuple[Receipt, pa.Table]]:
    """Return what ``read_file`` returns, from the bytes of a file. Raises ``ValueError`` if they are damaged."""
    try:
        footer = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        if b'"timings"' not in footer[FOOTER_KEY]:  # files of rows version 2 have no digest
            check_seal(data, footer[SEAL_KEY])
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        if not any(table.schema.equals(schema(has_marginal=has_marginal)) for has_marginal in (False, True)):
            raise ValueError("its columns are not those of a result file")
        receipts = receipts_of(table.schema.metadata[FOOTER_KEY], len(data))
        rows = sum(r.totals.records for r in receipts)
        if rows != table.num_rows:
            raise ValueError(f"it has {table.num_rows} rows, its footer counts {rows}")
    except (
        pa.ArrowException,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
    ) as e:  # damage causes any of these in pyarrow
        raise ValueError(f"{type(e).__name__}: {' '.join(str(e).split())}") from e
    table, start, chunks = table.replace_schema_metadata(), 0, []
    for receipt in receipts:
        chunks.append((receipt, table.slice(start, receipt.totals.records)))
        start += receipt.totals.records
    return chunks


def read_footers(store: Store, filenames: Sequence[str], folder: str = MASKS) -> Iterator[tuple[str, list[Receipt]]]:
    """Yield (name, receipts) of many files, in order; several are read at a time."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(filenames), 1024):
            names = filenames[start : start + 1024]
            yield from zip(names, pool.map(lambda n: read_footer(store, n, folder), names), strict=True)


@contextmanager
def translated(store: Store, filename: str, folder: str = MASKS) -> Iterator[None]:
    """Raise ``OutputError`` for every exception that reading a damaged or missing result file can cause."""
    where = f"{store.uri}/{folder}/{filename}"
    try:
        yield
    except OutputError:
        raise
    except FileNotFoundError:
        raise gone(store, filename, folder) from None
    except StorageError as e:  # raised by the stream of ``Store.open``
        raise OutputError(str(e), like=e if e.kind == "unavailable" else None) from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        reason = f"{type(e).__name__}: {' '.join(str(e).split())}"
        raise OutputError(
            f"{where}: not a readable result file ({reason}); `segbatch verify --repair` computes its rows again, as "
            "do deleting it and the same `segbatch run`"
        ) from e


def gone(store: Store, filename: str, folder: str = MASKS) -> OutputError:
    """Return the error for a result file that was listed and is missing now."""
    return OutputError(
        f"{store.uri}/{folder}/{filename}: is gone since the output was listed: a compaction or another run has "
        "replaced it; try again"
    )
