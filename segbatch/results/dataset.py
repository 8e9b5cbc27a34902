"""``segbatch.open``: the rows of an output, read lazily from any store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.output.stats import classes_table
from segbatch.output.totals import Totals
from segbatch.results.arrow import arrow_dataset
from segbatch.results.image_reader import ImageReader
from segbatch.results.notebook import dataset_html
from segbatch.results.row import MaskRow
from segbatch.results.rows import MaskRows
from segbatch.skipped import Skipped
from segbatch.sources.unique_ids import id_hash, id_hashes

_READERS = 16
_FAILED = pc.field("error").is_valid()
_ERROR_COLUMNS = ["image_id", "source", "index", "height", "width", "error"]


@dataclass(frozen=True)
class _Index:
    """Where each image is. ``hashes`` uint64 (N,), sorted; ``files`` and ``rows`` uint32 (N,), in the same order."""

    hashes: np.ndarray
    files: np.ndarray
    rows: np.ndarray

    @staticmethod
    def of(image_ids: Sequence[np.ndarray]) -> _Index:
        """An index of the hashes of the ids in each file."""
        hashes = np.concatenate([np.zeros(0, np.uint64), *image_ids])
        order = np.argsort(hashes, kind="stable")
        files = np.repeat(np.arange(len(image_ids), dtype=np.uint32), [len(part) for part in image_ids])
        rows = np.concatenate([np.zeros(0, np.uint32), *(np.arange(len(p), dtype=np.uint32) for p in image_ids)])
        return _Index(hashes[order], files[order], rows[order])

    def places(self, image_id: str) -> Iterator[tuple[int, int]]:
        """(file, row) of every image whose hash is that of ``image_id``."""
        wanted = np.uint64(id_hash(image_id))
        first, stop = np.searchsorted(self.hashes, wanted, "left"), np.searchsorted(self.hashes, wanted, "right")
        yield from ((int(self.files[i]), int(self.rows[i])) for i in range(first, stop))


class MaskDataset(MaskRows):
    """The rows of an output: their number, each in order of the files, each by its image id.

    Opening reads run.json alone. The files are listed once, when rows are first read; reading a file that a
    compaction or a run has replaced since is an ``OutputError``. ``dataset[image_id]`` reads the column ``image_id``
    once and keeps an index of 16 bytes per image. Picklable, as a ``DataLoader`` requires.

    Attributes:
        output: The output that is read.
    """

    @staticmethod
    def open(
        output: str, *, inputs: Sequence[str] | None = None, storage_options: dict[str, Any] | None = None
    ) -> MaskDataset:
        """Open the output that a run has written into a folder or prefix, finished or not.

        Args:
            output: The folder or prefix.
            inputs: Where the images are now, if they were moved; by default the inputs of the run. They are listed
                when the first image is read.
            storage_options: Options for fsspec.

        Raises:
            PlanError: The folder holds no output of segbatch.
        """
        opened = Output.open(output, storage_options)
        return MaskDataset(opened, ImageReader(opened, inputs, storage_options))

    def __repr__(self) -> str:
        return f"MaskDataset({self.output.uri!r})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the number of rows, the classes, and up to eight overlays."""
        return dataset_html(self)

    @property
    def is_complete(self) -> bool:
        """Whether the run is finished; else the dataset is what was committed so far."""
        return self.record.state == "done"

    @property
    def totals(self) -> Totals:
        """Sums over all rows: records, errors by type, and images, pixels and confidence of each class."""
        return self._sums[0]

    @property
    def skipped(self) -> Skipped:
        """What the inputs hold besides records."""
        return self._sums[1]

    def __len__(self) -> int:
        return self.totals.records

    def __getitem__(self, image_id: str) -> MaskRow:
        """Read one row. Raises ``KeyError`` for an id that is not in the output."""
        for row in self._find(image_id):
            return MaskRow.from_dict(row, self.classes, self.images)
        raise KeyError(image_id)

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and any(self._find(image_id, ["image_id"]))

    def _find(self, image_id: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the row with an id, if there is one: ids with equal hashes are told apart."""
        for file, position in self._index.places(image_id):
            (row,) = self._reader.read(self._files[file], [position], columns).to_pylist()
            if row["image_id"] == image_id:
                yield row

    def errors(self, limit: int | None = None) -> Iterator[MaskRow]:
        """Read the error rows, up to ``limit`` of them, in order of the files; files without any are not read."""
        batches = self.output.batches(_ERROR_COLUMNS, _FAILED, files=self._files, has=lambda totals: totals.failed)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from self._rows(itertools.islice(rows, limit))

    def to_arrow_dataset(self) -> pads.Dataset:
        """Return all rows as a ``pyarrow.dataset.Dataset``, for query engines such as DuckDB.

        Scans read the columns and row groups that they need, from any store, with the credentials of this dataset.
        Rows that are superseded, which exist while a compaction runs, are not in it.

        Raises:
            OutputError: The output cannot be listed.
        """
        return arrow_dataset(self.output, self._files, self._schema)

    def class_table(self) -> pa.Table:
        """Return images, pixels, share and confidence of each class over all rows, in order of ids."""
        return classes_table(self.totals, self.classes)

    @cached_property
    def _sums(self) -> tuple[Totals, Skipped]:
        if self.is_complete:
            return self.record.sums(), self.record.all_skipped
        totals, skipped = Totals(len(self.classes)), Skipped()
        for receipt in self._ledger.receipts(self.output.store):
            totals.add(receipt.totals)
            skipped.merge(receipt.skipped)
        return totals, skipped

    @cached_property
    def _index(self) -> _Index:
        def hashes(file: ResultFile) -> np.ndarray:
            ids = file.read(self.output.store, ["image_id"])["image_id"].to_pylist()
            return id_hashes(ids)

        with ThreadPoolExecutor(_READERS) as pool:
            return _Index.of(list(pool.map(hashes, self._files)))
