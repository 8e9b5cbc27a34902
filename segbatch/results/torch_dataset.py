"""Pairs of image and mask for PyTorch; the only module of this package that imports torch."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segbatch.errors import SourceError
from segbatch.output.result_file import ResultFile
from segbatch.output.row_reader import RowReader
from segbatch.results.image_reader import decoded
from segbatch.results.originals import Originals
from segbatch.results.row import MaskRow

_COLUMNS = ["image_id", "source", "index", "height", "width", "mask", "error"]


class MaskPairs(Dataset[Any]):
    """A map-style dataset of pairs: image uint8 (3, H, W) and class ids int64 (H, W), in which 255 stays 255.

    Items are in order of the files. A ``DataLoader`` requests a batch at once: each row group and each shard of the
    inputs is then read once for the batch. Picklable; a forked or spawned worker opens its own files and connections.

    Attributes:
        num_errors: Number of error rows, which are left out.
    """

    def __init__(
        self,
        places: Sequence[tuple[ResultFile, np.ndarray]],
        reader: RowReader,
        originals: Originals,
        *,
        max_pixels: int,
        num_errors: int,
        transform: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
    ) -> None:
        """See ``MaskRows.to_torch_dataset``.

        Args:
            places: Files, and the places of the masks among the current rows of each.
            reader: Reads the rows.
            originals: Reads the images.
            max_pixels: Larger images are not decoded.
            num_errors: Number of error rows that are left out.
            transform: Is given image and mask, and returns the item.
        """
        self._files = [file for file, _ in places]
        self._file_of = np.repeat(np.arange(len(places), dtype=np.uint32), [len(rows) for _, rows in places])
        self._place_of = np.concatenate([np.zeros(0, np.uint32), *(rows.astype(np.uint32) for _, rows in places)])
        self._readers, self._max_pixels, self._transform = (reader, originals), max_pixels, transform
        self.num_errors = num_errors
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_process"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _process=os.getpid())

    def __len__(self) -> int:
        return len(self._file_of)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items at ``indices``, in this order.

        Raises:
            SourceError: An image is not available, or is no longer the one that was segmented.
        """
        if self._process != os.getpid():  # connections of the parent process do not work after a fork
            self.__setstate__({**self.__dict__, "_readers": pickle.loads(pickle.dumps(self._readers))})
        positions = [range(len(self))[index] for index in indices]
        items = dict.fromkeys(positions)
        rows = self._rows(np.unique(positions))
        at = {row.image_id: position for position, row in rows.items()}
        for original in self._readers[1].read(rows.values()):
            image = decoded(original, self._max_pixels)
            if image.pixels is None:
                raise SourceError(image.problem)
            items[at[image.row.image_id]] = self._item(image.pixels, image.row.mask)
        return [items[position] for position in positions]

    def _rows(self, positions: np.ndarray) -> dict[int, MaskRow]:
        """Read rows by their positions in this dataset, file by file."""
        rows: dict[int, MaskRow] = {}
        for file in np.unique(self._file_of[positions]):
            chosen = positions[self._file_of[positions] == file]
            table = self._readers[0].read(self._files[file], self._place_of[chosen], _COLUMNS)
            rows.update(zip(map(int, chosen), map(MaskRow.from_dict, table.to_pylist()), strict=True))
        return rows

    def _item(self, pixels: np.ndarray, mask: np.ndarray | None) -> Any:
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        target = torch.from_numpy(np.asarray(mask).astype(np.int64))
        return (image, target) if self._transform is None else self._transform(image, target)
