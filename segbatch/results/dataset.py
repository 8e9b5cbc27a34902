"""``segbatch.open``: the rows of an output, read lazily from any store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.codecs import mask_png
from segbatch.labels import LabelSet
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.output.run_record import RunRecord
from segbatch.output.schema import schema
from segbatch.output.totals import Totals
from segbatch.records import ClassCount, RecordError
from segbatch.skipped import Skipped
from segbatch.sources.unique_ids import id_hash

_READERS = 16
_FAILED = pc.field("error").is_valid()
_ERROR_COLUMNS = ["image_id", "source", "index", "height", "width", "error"]


@dataclass(frozen=True)
class MaskRow:
    """One row of an output: a mask, or the error that says why there is none.

    Attributes:
        image_id: Unique in the output; begins with the name of the shard.
        source: Name of the input file that holds the image.
        index: Position of the record in its shard.
        height: Height of image and mask in pixels, or None if it is not known.
        width: Width in pixels, or None.
        png: The mask as a palette PNG whose pixel values are class ids, or None.
        classes: Its classes, most pixels first.
        confidence: Mean over the pixels of the network's probability of their class, 0 to 1, or None.
        marginal: Mean over the pixels of the refiner's probability of their class, if the job keeps it.
        error: Stage, type and message, or None.
    """

    image_id: str
    source: str
    index: int
    height: int | None
    width: int | None
    png: bytes | None = None
    classes: tuple[ClassCount, ...] = ()
    confidence: float | None = None
    marginal: float | None = None
    error: RecordError | None = None

    @cached_property
    def mask(self) -> np.ndarray | None:
        """Class ids, uint8 (H, W), or uint16 for more than 256 classes; None for an error row."""
        return None if self.png is None else mask_png.decode(self.png)

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> MaskRow:
        """Build a row from the columns of ``output.schema``; those that are left out have their defaults."""
        fields = {name: value for name, value in row.items() if name not in ("mask", "classes", "error")}
        classes = tuple(ClassCount(**count) for count in row.get("classes") or ())
        error = None if row["error"] is None else RecordError(**row["error"])
        return MaskRow(**fields, png=row.get("mask"), classes=classes, error=error)


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


class MaskDataset:
    """The rows of an output: their number, each in order of the files, each by its image id.

    Opening reads run.json alone. The files are listed once, when rows are first read; reading a file that a
    compaction or a run has replaced since is an ``OutputError``. ``dataset[image_id]`` reads the column ``image_id``
    once and keeps an index of 16 bytes per image. Picklable, as a ``DataLoader`` requires.

    Attributes:
        output: The output that is read.
    """

    def __init__(self, output: Output) -> None:
        self.output = output

    @staticmethod
    def open(output: str, *, storage_options: dict[str, Any] | None = None) -> MaskDataset:
        """Open the output that a run has written into a folder or prefix, finished or not.

        Raises:
            PlanError: The folder holds no output of segbatch.
        """
        return MaskDataset(Output.open(output, storage_options))

    def __repr__(self) -> str:
        return f"MaskDataset({self.output.store.uri!r})"

    @property
    def record(self) -> RunRecord:
        """The content of run.json."""
        return self.output.record

    @property
    def is_complete(self) -> bool:
        """Whether the run is finished; else the dataset is what was committed so far."""
        return self.record.state == "done"

    @property
    def classes(self) -> LabelSet:
        """Names of the classes, in order of their ids, and their colors."""
        return self.record.labels

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

    def __iter__(self) -> Iterator[MaskRow]:
        """Read every row, in order of the files; one batch is held at a time."""
        for batch in self.output.batches(files=self._files):
            yield from map(MaskRow.from_dict, batch.to_pylist())

    def __getitem__(self, image_id: str) -> MaskRow:
        """Read one row. Raises ``KeyError`` for an id that is not in the output."""
        for file, row in self._index.places(image_id):
            (values,) = self._files[file].row(self.output.store, row).to_pylist()
            if values["image_id"] == image_id:
                return MaskRow.from_dict(values)
        raise KeyError(image_id)

    def __contains__(self, image_id: object) -> bool:
        try:
            return isinstance(image_id, str) and self[image_id].image_id == image_id
        except KeyError:
            return False

    def errors(self, limit: int | None = None) -> Iterator[MaskRow]:
        """Read the error rows, up to ``limit`` of them, in order of the files; files without any are not read."""
        batches = self.output.batches(_ERROR_COLUMNS, _FAILED, files=self._files, has=lambda totals: totals.failed)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from map(MaskRow.from_dict, itertools.islice(rows, limit))

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Return all rows as a stream of Arrow batches, read as they are taken; ``read_all()`` makes a table of it."""
        whole = schema(has_marginal=self.record.has_marginal)
        chosen = whole if columns is None else pa.schema([whole.field(name) for name in columns])
        return pa.RecordBatchReader.from_batches(chosen, self.output.batches(columns, files=self._files))

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
    def _ledger(self) -> Ledger:
        return self.output.ledger()

    @cached_property
    def _files(self) -> list[ResultFile]:
        return self._ledger.files()

    @cached_property
    def _index(self) -> _Index:
        def hashes(file: ResultFile) -> np.ndarray:
            ids = file.read(self.output.store, ["image_id"])["image_id"].to_pylist()
            return np.array([id_hash(image_id) for image_id in ids], np.uint64)

        with ThreadPoolExecutor(_READERS) as pool:
            return _Index.of(list(pool.map(hashes, self._files)))
