"""The lattice's filter and a step of mean field by Triton, for a GPU.

Each thread reads 16 bytes of a row. torch's ``embedding_bag`` has one thread per column, and took nine tenths of the
filter's time on an H100. There are no atomics: every sum has a fixed order, and results are the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from segbatch.crf.triton_kernels import (
    blur_kernel,
    finish_kernel,
    gather_kernel,
    long_kernel,
    slice_kernel,
    start_kernel,
)

# Threads of a program, and entries of a row that a thread reads at once.
_THREADS, _AHEAD = 128, 2
# Values and warps of a program that sums across rows or columns, measured on an H100 at 4 and 24 columns. With few
# columns, a warp has many rows.
_FEW, _MANY = (128, 1), (256, 2)
_PIECE_VALUES, _PIECE_WARPS = 1024, 2
_PIXELS = 64  # of a program that converts maps to rows, or back


def gather(index: Tensor, offsets: Tensor, weights: Tensor, values: Tensor, out: Tensor, longest: int) -> None:
    """Compute ``out[r] = sum(weights[e] * values[index[e]] for offsets[r] <= e < offsets[r + 1])``.

    Rows of more than ``longest`` entries are skipped. ``values`` (n, K) and ``out`` (rows or more, K) are contiguous.
    """
    assert values.is_contiguous()
    rows, columns = offsets.numel() - 1, values.shape[1]
    width, threads, grid = _tile(rows, columns)
    with torch.cuda.device_of(values):
        gather_kernel[grid](
            *(values, index, weights, offsets, out, rows, longest),
            *(columns, width, threads, _AHEAD),
            num_warps=threads // 32,
        )


def gather_long(
    index: Tensor | None, weights: Tensor | None, starts: Tensor, ends: Tensor, to: Tensor, values: Tensor, out: Tensor
) -> None:
    """Compute ``out[to[r]]`` as ``gather``, one row per program; without an index, sum ``values[starts:ends]``."""
    columns = values.shape[1]
    cols = triton.next_power_of_2(columns)
    with torch.cuda.device_of(values):
        long_kernel[(starts.numel(),)](
            *(values, index, weights, starts, ends, to, out),
            *(index is None, columns, max(1, _PIECE_VALUES // cols), cols),
            num_warps=_PIECE_WARPS,
        )


def blur(values: Tensor, neighbors: Sequence[Tensor]) -> Tensor:
    """Blur values (n, K), contiguous, by ``x[v] + (x[a] + x[b]) / 2`` along one axis after another.

    Args:
        neighbors: Of each axis (n, 2), -1 for none.
    """
    assert values.is_contiguous()
    rows, columns = values.shape
    width, threads, grid = _tile(rows, columns)
    with torch.cuda.device_of(values):
        for start in range(0, len(neighbors), 2):
            first, second = neighbors[start], neighbors[min(start + 1, len(neighbors) - 1)]
            out = torch.empty_like(values)
            blur_kernel[grid](
                *(values, first, second, out, rows),
                *(first is not second, columns, width, threads),
                num_warps=threads // 32,
            )
            values = out
    return values


Slice = tuple[Tensor, Tensor, Tensor, float]


def add_slices(base: Tensor, slices: Sequence[Slice], *, softmax: bool) -> Tensor:
    """Return ``base + coupling * slice(values)`` for all slices, or its softmax.

    Two slices share a pass over the points.

    Args:
        base: (points, K), contiguous.
        slices: Index and weights, with the same number of entries for each point, values (n, K), contiguous, and the
            coupling.
        softmax: Whether to return the softmax.
    """
    points, columns = base.shape
    cols = triton.next_power_of_2(columns)
    count, warps = _MANY if cols >= 16 else _FEW
    rows = max(1, count // cols)
    for start in range(0, len(slices), 2):
        pair = slices[start : start + 2]
        assert base.is_contiguous()
        assert all(values.is_contiguous() for _, _, values, _ in pair)
        out = torch.empty_like(base)
        arguments = [(values, index, weights, coupling) for index, weights, values, coupling in (pair[0], pair[-1])]
        corners = [index.numel() // points for index, _, _, _ in pair] + [0]
        last = start + 2 >= len(slices)
        with torch.cuda.device_of(base):
            slice_kernel[(triton.cdiv(points, rows),)](
                *(base, out, points, *arguments[0], *arguments[1]),
                *(softmax and last, corners[0], corners[1], columns, rows, cols),
                num_warps=warps,
            )
        base = out
    return base


def start(unary: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and their softmax, in rows of a multiple of 16 bytes, of energies (B, K, H, W), contiguous.

    Rows are padded with labels of infinite energy.
    """
    assert unary.is_contiguous()
    images, labels, height, width = unary.shape
    columns, pixels = labels + -labels % 4, height * width
    logits = unary.new_empty(images * pixels, columns)
    marginals = torch.empty_like(logits)
    with torch.cuda.device_of(unary):
        start_kernel[(triton.cdiv(pixels, _PIXELS), images)](
            *(unary, logits, marginals, pixels),
            *(labels, columns, _PIXELS, triton.next_power_of_2(columns)),
        )
    return logits, marginals


def finish(rows: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """Convert rows (B * H * W, K or more) to maps of ``size`` (B, K, H, W), contiguous."""
    images, labels, height, width = size
    pixels, columns = height * width, rows.shape[1]
    maps = rows.new_empty(size)
    with torch.cuda.device_of(rows):
        finish_kernel[(triton.cdiv(pixels, _PIXELS), images)](
            *(rows, maps, pixels),
            *(labels, columns, _PIXELS, triton.next_power_of_2(columns)),
        )
    return maps


def _tile(rows: int, columns: int) -> tuple[int, int, tuple[int]]:
    """Return columns per thread, threads per program, and programs."""
    width = math.gcd(columns, 4)
    threads = max(_THREADS, triton.next_power_of_2(columns // width))
    return width, threads, (triton.cdiv(rows, threads // (columns // width)),)
