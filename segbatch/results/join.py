"""Rows of two outputs with the same image id, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.results.dataset import MaskDataset
from segbatch.results.row import MaskRow
from segbatch.sources.unique_ids import id_hash, id_hashes

COLUMNS = ("image_id", "source", "index", "height", "width", "mask", "classes", "error")
_BLOCK_BYTES = 256 * 2**20
_READERS = 16
MAX_NAMES = 5


class Join:
    """Pairs of the rows of output A and output B with the same image id.

    Of A one block of rows is held at a time, of B an index of 13 bytes per image. For each block those files of B are
    read that have some of its images: where both outputs have the same order, each file is read about once.

    Args:
        a, b: The outputs.
        block_bytes: Size of the blocks.

    Attributes:
        only_a, only_b: Number of images in one of them alone, once all pairs were taken.
        names_a, names_b: The first of their ids.
    """

    def __init__(self, a: MaskDataset, b: MaskDataset, block_bytes: int = _BLOCK_BYTES) -> None:
        self._a, self._b, self._block_bytes = a, b, block_bytes
        self.only_a = self.only_b = 0
        self.names_a: list[str] = []
        self.names_b: list[str] = []

    def __iter__(self) -> Iterator[tuple[MaskRow, MaskRow]]:
        index = _Index(self._b.output)
        for block in self._blocks():
            ids = pa.array(list(block), pa.string())
            for batch in self._b.output.batches(COLUMNS, files=index.files_with(block)):
                for values in batch.filter(pc.is_in(batch["image_id"], ids)).to_pylist():
                    row = MaskRow.from_dict(values, self._b.classes)
                    index.mark(row.image_id)
                    yield block.pop(row.image_id), row
            self.only_a += len(block)
            self.names_a += list(block)[: MAX_NAMES - len(self.names_a)]
        self.only_b, self.names_b = index.unmarked()

    def _blocks(self) -> Iterator[dict[str, MaskRow]]:
        rows: list[pa.RecordBatch] = []
        size = 0
        for batch in self._a.batches(COLUMNS):
            rows.append(batch)
            size += batch.nbytes
            if size >= self._block_bytes:
                yield self._by_id(rows)
                rows, size = [], 0
        yield self._by_id(rows)

    def _by_id(self, batches: Sequence[pa.RecordBatch]) -> dict[str, MaskRow]:
        rows = (MaskRow.from_dict(values, self._a.classes) for batch in batches for values in batch.to_pylist())
        return {row.image_id: row for row in rows}


class _Index:
    """Which file of an output holds each image, by the hash of its id, and which images were marked."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._files = output.ledger().files()
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(self._hashes, self._files))
        hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
        order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[order]
        self._file = np.repeat(np.arange(len(parts), dtype=np.uint32), [len(part) for part in parts])[order]
        self._marked = np.zeros(len(hashes), bool)

    def _hashes(self, file: ResultFile) -> np.ndarray:
        batches = self._output.batches(["image_id"], files=[file])
        return id_hashes(name for batch in batches for name in batch["image_id"].to_pylist())

    def files_with(self, image_ids: Sequence[str] | dict[str, MaskRow]) -> list[ResultFile]:
        """Return the files that hold images with these ids, or with their hashes."""
        hashes = id_hashes(image_ids)
        wanted = np.isin(self._sorted, hashes)
        return [self._files[i] for i in np.unique(self._file[wanted])]

    def mark(self, image_id: str) -> None:
        self._marked[np.searchsorted(self._sorted, np.uint64(id_hash(image_id)))] = True

    def unmarked(self) -> tuple[int, list[str]]:
        """Return the number of images that were not marked, and the first of their ids."""
        hashes = self._sorted[~self._marked]
        files = [self._files[i] for i in np.unique(self._file[~self._marked])]
        names: list[str] = []
        for batch in self._output.batches(["image_id"], files=files) if len(hashes) else ():
            ids = batch["image_id"].to_pylist()
            is_unmarked = np.isin(id_hashes(ids), hashes)
            names += [name for name, wanted in zip(ids, is_unmarked, strict=True) if wanted]
            if len(names) >= MAX_NAMES:
                break
        return len(hashes), names[:MAX_NAMES]
