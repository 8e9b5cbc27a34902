"""Rows of an output, all or those that a filter selects, read lazily from any store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.errors import SourceError, SpecError
from segbatch.labels import LabelSet
from segbatch.output.ledger import Ledger
from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.output.row_reader import RowReader
from segbatch.output.run_record import RunRecord
from segbatch.output.schema import schema
from segbatch.results.filters import Filter, class_ids
from segbatch.results.image_reader import ImageReader
from segbatch.results.notebook import rows_html
from segbatch.results.row import MaskRow

if TYPE_CHECKING:
    from segbatch.results.torch_dataset import MaskPairs

_READERS = 16
_BATCH_ROWS = 1024


class MaskRows:
    """Rows of an output, in order of its files: their number, each in turn, as Arrow, as a dataset of torch.

    Nothing is read before it is used. The files are listed once, when rows are first read; reading a file that a
    compaction or a run has replaced since is an ``OutputError``. Picklable.

    Attributes:
        output: The output that is read.
        images: Reads the images of the rows from the inputs of the run.
        filters: The rows satisfy all of them.
    """

    def __init__(
        self,
        output: Output,
        images: ImageReader | None = None,
        filters: tuple[Filter, ...] = (),
        whole: MaskRows | None = None,
    ) -> None:
        """Select rows of an output.

        Args:
            output: The output.
            images: Reads the images; from the inputs of the run unless given.
            filters: Conditions on the rows.
            whole: Rows of the same output, whose listing of files is used.
        """
        self.output, self.images, self.filters, self._whole = output, images or ImageReader(output), filters, whole
        self._reader: RowReader = RowReader(output.store) if whole is None else whole._reader

    @property
    def record(self) -> RunRecord:
        """The content of run.json."""
        return self.output.record

    @cached_property
    def classes(self) -> LabelSet:
        """Names of the classes, in order of their ids, and their colors."""
        return self.record.labels

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[MaskRow]:
        """Read every row, in order of the files; one batch is held at a time."""
        return self.read_rows()

    def read_rows(self, columns: Sequence[str] | None = None) -> Iterator[MaskRow]:
        """Read every row as ``__iter__`` does, with some of the columns.

        Args:
            columns: Columns of ``output.schema``, among them those from ``image_id`` to ``width``, and ``error``.
        """
        for batch in self.batches(columns):
            yield from self._rows(batch.to_pylist())

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read the rows as Arrow batches of at most 1,024, or of a chunk.

        Args:
            columns: Columns of ``output.schema``; all of them unless given.

        Raises:
            SpecError: The output has no such column.
            OutputError: A file cannot be read, or is gone since it was listed.
        """
        chosen = self._chosen(columns).names
        if not self.filters:
            yield from self.output.batches(chosen, files=self._files)
            return
        for file, positions in self._selected():
            for start in range(0, len(positions), _BATCH_ROWS):
                part = positions[start : start + _BATCH_ROWS]
                yield from self._reader.read(file, part, chosen).combine_chunks().to_batches()

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Return the rows as a stream of Arrow batches, read as they are taken; ``read_all()`` makes a table of it."""
        return pa.RecordBatchReader.from_batches(self._chosen(columns), self.batches(columns))

    def select(
        self,
        *,
        classes: Iterable[int | str] | None = None,
        min_confidence: float | None = None,
        max_confidence: float | None = None,
        errors: bool | None = None,
        where: pc.Expression | None = None,
    ) -> MaskRows:
        """Return those rows that satisfy every condition given. Nothing is read yet.

        Args:
            classes: Names or ids; the mask has at least one of these classes.
            min_confidence: The least mean confidence of the image, 0 to 1; error rows have none.
            max_confidence: The largest.
            errors: True for error rows alone, False for rows with a mask.
            where: An expression over the columns but ``mask``, such as ``pc.field("width") > 640``.

        Raises:
            SpecError: A class is not one of the output's.
        """
        ids = None if classes is None else frozenset(class_ids(classes, self.classes))
        added = Filter(ids, min_confidence, max_confidence, errors, where)
        return MaskRows(self.output, self.images, (*self.filters, added), self._whole or self)

    def to_torch_dataset(self, *, transform: Callable[[Any, Any], Any] | None = None) -> MaskPairs:
        """Return the masks with their images as a map-style dataset of PyTorch, to train on the results.

        Args:
            transform: Is given an image, uint8 (3, H, W), and its class ids, int64 (H, W), and returns the item;
                images of different sizes need one, to be collated into batches. With workers, it must be picklable.

        Returns:
            The pairs (image, class ids); error rows are left out, and counted in ``num_errors``.

        Raises:
            OutputError: A file cannot be read, or is gone since it was listed.
            SourceError: The inputs of the run cannot be listed.
        """
        from segbatch.results.torch_dataset import MaskPairs

        if problem := self.images.originals.problem:  # listed here once, for all workers
            raise SourceError(problem)
        places = list(self.select(errors=False)._selected())
        return MaskPairs(
            places,
            self._reader,
            self.images.originals,
            max_pixels=self.images.max_pixels,
            num_errors=len(self) - sum(len(positions) for _, positions in places),
            transform=transform,
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the number of rows, and up to eight overlays."""
        return rows_html(self)

    def _chosen(self, columns: Sequence[str] | None) -> pa.Schema:
        """Return the schema of some columns, or of all. Raises ``SpecError`` for an unknown one."""
        known = self._schema.names
        for name in columns or ():
            if name not in known:
                raise SpecError(
                    f"columns: got {name!r}, which is not a column of the output; it has {', '.join(known)}"
                )
        return self._schema if columns is None else pa.schema([self._schema.field(name) for name in columns])

    def _selected(self) -> Iterator[tuple[ResultFile, np.ndarray]]:
        """Yield each file, and the places of the rows that are selected among its current rows; 16 are read at once."""
        known = self._schema.names
        filters = self.filters or (Filter(),)
        columns = [name for name in known if any(name in given.columns(known) for given in filters)]

        def positions(file: ResultFile) -> np.ndarray:
            batches = file.batches(self.output.store, columns)
            chosen = [np.all([given.selects(batch) for given in filters], axis=0) for batch in batches]
            return np.flatnonzero(np.concatenate([np.zeros(0, bool), *chosen]))

        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(self._files), _READERS):
                files = self._files[start : start + _READERS]
                yield from zip(files, pool.map(positions, files), strict=True)

    @cached_property
    def _schema(self) -> pa.Schema:
        return schema(has_marginal=self.record.has_marginal)

    @cached_property
    def _ledger(self) -> Ledger:
        return self.output.ledger()

    @cached_property
    def _files(self) -> list[ResultFile]:
        return self._ledger.files() if self._whole is None else self._whole._files

    @cached_property
    def _count(self) -> int:
        return sum(len(positions) for _, positions in self._selected())

    def _rows(self, values: Iterable[dict[str, Any]]) -> Iterator[MaskRow]:
        return (MaskRow.from_dict(row, self.classes, self.images) for row in values)
