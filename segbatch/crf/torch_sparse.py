"""Sparse matrices in rows, applied to values of points or vertices by torch or, on a GPU, by Triton."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

# Maximum entries of a row that one GPU thread sums, and of a piece of a longer row, summed by all threads of a program.
# Where many points share a vertex, as in a white background, a row of the splat has thousands of entries.
_MAX_ROW_POINTS, _PIECE = 64, 512


@cache
def triton(device: torch.device) -> ModuleType | None:
    """Return ``triton_filter`` if Triton runs on this device: it needs a GPU, and a C compiler for its launcher."""
    if device.type != "cuda":
        return None
    try:
        from segbatch.crf import triton_filter as kernels

        one = torch.ones(1, 1, device=device)
        kernels.blur(one, [torch.full((1, 2), -1, dtype=torch.int32, device=device)])
    except Exception as error:  # Triton, its compiler and the driver raise anything; torch computes the same
        logger.warning("the dense CRF runs without Triton on %s, which is several times slower: %s", device, error)
        return None
    return kernels


@dataclass(frozen=True)
class Gather:
    """A sparse matrix in rows: ``out[r] = sum(weights[e] * values[index[e]] for e in row r)``.

    ``long`` are the rows that Triton sums in pieces.
    """

    index: Tensor  # int32 or int64 (entries,)
    offsets: Tensor  # same dtype (rows + 1,)
    weights: Tensor  # (entries,)
    long: LongRows | None = None

    def __call__(self, values: Tensor) -> Tensor:
        kernels = triton(values.device)
        if kernels is None:
            return F.embedding_bag(
                self.index,
                values,
                self.offsets,
                per_sample_weights=self.weights,
                mode="sum",
                include_last_offset=True,
            )
        rows, long = self.offsets.numel() - 1, self.long
        out = values.new_empty(rows + (long.starts.numel() if long else 0), values.shape[1])
        kernels.gather(self.index, self.offsets, self.weights, values, out, long.longest if long else 2**31 - 1)
        if long:
            kernels.gather_long(self.index, self.weights, long.starts, long.ends, long.to, values, out)
            if long.rows is not None:
                kernels.gather_long(None, None, long.first, long.last, long.rows, out, out)
        return out[:rows]

    def repeat(self, times: int, columns: int) -> Gather:
        """Return the block-diagonal matrix of ``times`` copies of this one, which has ``columns`` columns."""
        entries, rows = self.index.numel(), self.offsets.numel() - 1
        kind = index_dtype(times * max(entries, columns, rows))
        step = torch.arange(times, device=self.index.device, dtype=kind)[:, None]
        last = self.offsets.new_tensor([times * entries], dtype=kind)
        repeated = Gather(
            (self.index.to(kind) + step * columns).reshape(-1),
            torch.cat([(self.offsets[:-1].to(kind) + step * entries).reshape(-1), last]),
            self.weights.repeat(times),
        )
        return repeated.in_pieces(self.long.longest, self.long.piece) if self.long else repeated

    def in_pieces(self, longest: int = _MAX_ROW_POINTS, piece: int = _PIECE) -> Gather:
        """Return the same matrix, whose rows of more than ``longest`` entries are summed in pieces of ``piece``."""
        sizes = self.offsets.diff()
        rows = (sizes > longest).nonzero().squeeze(1)
        if not rows.numel():
            return self
        count = torch.div(sizes[rows] + (piece - 1), piece, rounding_mode="floor")
        last = count.cumsum(0)
        first = last - count
        total, most = torch.stack([last[-1], count.max()]).tolist()
        of = torch.repeat_interleave(count, output_size=total)
        number = torch.arange(total, device=rows.device)
        starts = self.offsets[rows[of]] + (number - first[of]) * piece
        ends = torch.minimum(starts + piece, self.offsets[rows[of] + 1])
        if most == 1:
            return replace(self, long=LongRows(longest, piece, starts, ends, rows))
        end = sizes.numel()  # the sums of pieces follow the rows
        return replace(self, long=LongRows(longest, piece, starts, ends, number + end, rows, first + end, last + end))


@dataclass(frozen=True)
class LongRows:
    """The pieces of a matrix's long rows.

    Attributes:
        starts, ends: The entries of each piece, int64.
        to: The row in which each piece's sum is stored.
        rows: If some row has several pieces: the rows that are the sums of the rows ``first`` to ``last`` of pieces.
    """

    longest: int
    piece: int
    starts: Tensor
    ends: Tensor
    to: Tensor
    rows: Tensor | None = None
    first: Tensor | None = None
    last: Tensor | None = None


class Blur(Protocol):
    """The blur by 1/2, 1, 1/2 along one axis of a lattice after another. Along each it is its own adjoint."""

    def __call__(self, values: Tensor) -> Tensor:
        """Blur values (vertices, K), contiguous."""
        ...

    def adjoint(self) -> Blur:
        """Return the blur along the axes in the opposite order."""
        ...

    def repeat(self, times: int, vertices: int) -> Blur:
        """Return the blur of ``times`` lattices of ``vertices`` vertices."""
        ...


@dataclass(frozen=True)
class MatrixBlur:
    """The blur as one sparse matrix per axis."""

    axes: tuple[Gather, ...]

    def __call__(self, values: Tensor) -> Tensor:
        for axis in self.axes:
            values = axis(values)
        return values

    def adjoint(self) -> MatrixBlur:
        return MatrixBlur(self.axes[::-1])

    def repeat(self, times: int, vertices: int) -> MatrixBlur:
        return MatrixBlur(tuple(axis.repeat(times, vertices) for axis in self.axes))


@dataclass(frozen=True)
class TritonBlur:
    """The blur by Triton.

    Args:
        neighbors: For each axis int32 or int64 (vertices, 2): the vertices before and after each, -1 for none.
    """

    neighbors: tuple[Tensor, ...]

    def __call__(self, values: Tensor) -> Tensor:
        kernels = triton(values.device)
        assert kernels is not None
        blurred: Tensor = kernels.blur(values, self.neighbors)
        return blurred

    def adjoint(self) -> TritonBlur:
        return TritonBlur(self.neighbors[::-1])

    def repeat(self, times: int, vertices: int) -> TritonBlur:
        kind = index_dtype(times * vertices)
        step = torch.arange(times, device=self.neighbors[0].device, dtype=kind)[:, None, None] * vertices
        axes = (axis.to(kind) for axis in self.neighbors)
        return TritonBlur(tuple(torch.where(axis < 0, -1, axis + step).reshape(-1, 2) for axis in axes))


def index_dtype(entries: int) -> torch.dtype:
    return torch.int32 if entries < 2**31 else torch.int64
