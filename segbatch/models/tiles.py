"""Windows of large images, and the cells of the score grid that each window fills."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True)
class Window:
    """A rectangle of the padded image, and the cells of the scores that it fills.

    Attributes:
        top, left, height, width: In pixels.
        rows, cols: Slices of the score grid of the image, in cells.
        inner_rows, inner_cols: The same cells in the score grid of the window.
    """

    top: int
    left: int
    height: int
    width: int
    rows: slice
    cols: slice
    inner_rows: slice
    inner_cols: slice


@dataclass(frozen=True)
class Geometry:
    """The sizes that a network accepts, and the grid of its scores.

    Attributes:
        stride: Pixels per cell of the scores.
        multiple: Images are padded at the bottom and the right until both sides are multiples of it. Images of nearly
            equal size then share a batch, and every downsampling inside the network is exact.
        window: (height, width) of a network that accepts one size only. Smaller images are padded to it, larger ones
            are divided into several windows.
        pad: Padding repeats the border (``edge``) or has the mean color (``mean``), as in the network's training.
        halo: Pixels of context around the cells that a window fills.
        tile_pixels: Larger images are divided into windows of at most so many pixels.
        activations: Values per input pixel in the largest output of a layer, such as 64 in VGG.
    """

    stride: int
    multiple: int
    window: tuple[int, int] | None = None
    pad: Literal["edge", "mean"] = "edge"
    halo: int = 256
    tile_pixels: int = 2**22
    activations: int = 64

    def __post_init__(self) -> None:
        sides = (self.multiple, *(self.window or ()))
        if self.stride < 1 or any(side < 1 or side % self.stride for side in sides):
            raise ValueError(f"multiple and window must be positive multiples of stride {self.stride}; got {sides}")
        if self.tile_pixels < (least := (4 * self.multiple) ** 2):
            raise ValueError(f"tile_pixels must be at least {least} for this network; got {self.tile_pixels}")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (rows, columns) of the scores of an image: its sides divided by ``stride``, rounded up."""
        return -(-height // self.stride), -(-width // self.stride)

    def windows(self, height: int, width: int) -> list[Window]:
        """Return the windows of an image, whose cells cover its score grid once, without overlap.

        All windows of an image have the same size, which follows from the image's size alone. An image that fits is
        one window. Each cell is filled by the window in which it is farther from the border.
        """
        sides = self.window or self._tile(_ceil_to(height, self.multiple), _ceil_to(width, self.multiple))
        align = self.stride if self.window else self.multiple
        rows = self._spans(height, sides[0], align)
        cols = self._spans(width, sides[1], align)
        return [
            Window(top, left, *sides, rows=r, cols=c, inner_rows=inner_r, inner_cols=inner_c)
            for top, r, inner_r in rows
            for left, c, inner_c in cols
        ]

    def _tile(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the windows of a padded image: that of a small image, or else nearly square."""
        if height * width <= self.tile_pixels:
            return height, width
        if height > width:
            tile_width, tile_height = self._tile(width, height)
            return tile_height, tile_width
        tile_height = min(height, _floor_to(math.isqrt(self.tile_pixels), self.multiple))
        return tile_height, min(width, _floor_to(self.tile_pixels // tile_height, self.multiple))

    def _spans(self, length: int, side: int, align: int) -> list[tuple[int, slice, slice]]:
        """Return, along one axis, the start of each window in pixels, its cells, and the same cells inside it."""
        cells, surplus = -(-length // self.stride), _ceil_to(length, align) - side
        if surplus <= 0:
            return [(0, slice(0, cells), slice(0, cells))]
        halo = min(self.halo, _floor_to(side // 4, align))
        count = math.ceil(surplus / (side - 2 * halo)) + 1
        starts = [_floor_to(surplus * i // (count - 1), align) for i in range(count)]
        seams = [_floor_to((left + side + right) // 2, self.stride) // self.stride for left, right in pairwise(starts)]
        spans = []
        for start, low, high in zip(starts, [0, *seams], [*seams, cells], strict=True):
            first = start // self.stride
            spans.append((start, slice(low, high), slice(low - first, high - first)))
        return spans


def _ceil_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _floor_to(value: int, multiple: int) -> int:
    return value // multiple * multiple
