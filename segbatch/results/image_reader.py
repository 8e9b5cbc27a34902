"""Decoded images of the rows of an output, read again from the inputs of its run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from segbatch.codecs.decode import decode
from segbatch.errors import RecordFailure, SourceError
from segbatch.output.output import Output

if TYPE_CHECKING:
    from segbatch.results.originals import Original, Originals
    from segbatch.results.row import MaskRow


@dataclass(frozen=True)
class DecodedImage:
    """The image of one row.

    Attributes:
        row: The row.
        pixels: The image, upright, uint8 (H, W, 3) of the mask's size; None if it is not available.
        problem: Why it is not available, one line.
    """

    row: MaskRow
    pixels: np.ndarray | None
    problem: str = ""


class ImageReader:
    """Reads and decodes the images of rows. Nothing is listed before the first is read. Picklable.

    Args:
        output: The output.
        inputs: Where the inputs are now; those of the run unless given.
        storage_options: Options for fsspec.
    """

    def __init__(
        self,
        output: Output,
        inputs: Sequence[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._output, self._inputs, self._storage_options = output, inputs, storage_options

    def __getstate__(self) -> dict[str, Any]:
        # A row is pickled with its reader: without the inputs that were listed, which can be millions.
        return {key: value for key, value in self.__dict__.items() if key != "originals"}

    @cached_property
    def originals(self) -> Originals:
        """The encoded images."""
        from segbatch.results.originals import Originals

        return Originals(self._output, inputs=self._inputs, storage_options=self._storage_options)

    @property
    def max_pixels(self) -> int:
        """Larger images are not decoded, as in the run."""
        return int(self._output.record.spec["max_pixels"])

    def read(self, rows: Iterable[MaskRow]) -> Iterator[DecodedImage]:
        """Yield the image of each row once, in the order of the inputs."""
        for original in self.originals.read(rows):
            yield decoded(original, self.max_pixels)

    def pixels(self, row: MaskRow) -> np.ndarray:
        """Read one image, uint8 (H, W, 3). Raises ``SourceError`` that states why it is not available."""
        (image,) = self.read([row])
        if image.pixels is None:
            raise SourceError(image.problem)
        return image.pixels


def decoded(original: Original, max_pixels: int) -> DecodedImage:
    """Decode the image of a row; one of another size than the mask is a problem."""
    row = original.row
    if original.data is None:
        return DecodedImage(row, None, original.problem)
    try:
        pixels = decode(original.data, max_pixels)
    except RecordFailure as e:
        return DecodedImage(row, None, f"{row.image_id}: cannot be decoded: {e}")
    if pixels.shape[:2] != (row.height, row.width):
        size = f"{pixels.shape[0]} x {pixels.shape[1]} pixels, the mask {row.height} x {row.width}"
        return DecodedImage(row, None, f"{row.image_id}: the image has {size}; it has changed since the run")
    return DecodedImage(row, pixels)
