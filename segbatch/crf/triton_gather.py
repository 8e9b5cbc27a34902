"""The lattice's gathers as Triton kernels, for a GPU: sums of weighted rows, and a step of mean field in one pass.

torch's ``embedding_bag`` gives a row of values one thread a column and took nine tenths of the filter's time on an
H100; here a row is read 16 bytes a thread. Each row is summed in the order of its entries: the same bits in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

# Of how many threads a program is; one reads 16 bytes of a row at a time.
_THREADS = 128
# Entries of a row that are read at once.
_AHEAD = 2
# Values a program of ``_slice_kernel`` sums, and its warps, measured on an H100 at 4 and 24 columns.
_FEW, _MANY = (128, 1), (256, 2)


@triton.jit
def _place(rows, K: tl.constexpr, WIDTH: tl.constexpr, THREADS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The row of each thread, whether there is one, and its columns (THREADS, WIDTH) of the K."""
    PARTS: tl.constexpr = K // WIDTH
    ROWS: tl.constexpr = THREADS // PARTS
    thread = tl.arange(0, THREADS)
    local = thread // PARTS
    row = tl.program_id(0).to(tl.int64) * ROWS + local
    column = (thread % PARTS * WIDTH)[:, None] + tl.arange(0, WIDTH)[None, :]
    return row, (local < ROWS) & (row < rows), column


@triton.jit
def _read(values, row, live, column, K: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(values + row.to(tl.int64)[:, None] * K + column, live[:, None], 0.0)


@triton.jit
def _gather_kernel(  # type: ignore[no-untyped-def]
    values,
    index,
    weights,
    starts,
    ends,
    out,
    rows,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    THREADS: tl.constexpr,
    AHEAD: tl.constexpr,
):
    row, inside, column = _place(rows, K, WIDTH, THREADS)
    start = tl.load(starts + row, inside, 0)
    end = tl.load(ends + row, inside, 0)
    total = tl.zeros((THREADS, WIDTH), values.dtype.element_ty)
    for step in range(0, tl.max(end - start, 0), AHEAD):
        for more in tl.static_range(AHEAD):  # reads that need not wait for one another
            entry = start + step + more
            live = entry < end
            source = tl.load(index + entry, live, 0)
            weight = tl.load(weights + entry, live, 0.0)
            total += weight[:, None] * _read(values, source, live, column, K)
    tl.store(out + row[:, None] * K + column, total, inside[:, None])


@triton.jit
def _blurred(values, neighbours, row, live, column, K: tl.constexpr):  # type: ignore[no-untyped-def]
    before = tl.load(neighbours + 2 * row, live, -1)
    after = tl.load(neighbours + 2 * row + 1, live, -1)
    both = _read(values, before, before >= 0, column, K) + _read(values, after, after >= 0, column, K)
    return _read(values, row, live, column, K) + both * 0.5


@triton.jit
def _blur_kernel(  # type: ignore[no-untyped-def]
    values,
    first,
    second,
    out,
    rows,
    TWO: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    THREADS: tl.constexpr,
):
    row, inside, column = _place(rows, K, WIDTH, THREADS)
    total = _blurred(values, first, row, inside, column, K)
    if TWO:  # the first axis of each neighbour along the second, rather than write and read all rows between them
        before = tl.load(second + 2 * row, inside, -1).to(tl.int64)
        after = tl.load(second + 2 * row + 1, inside, -1).to(tl.int64)
        both = _blurred(values, first, before, before >= 0, column, K)
        both += _blurred(values, first, after, after >= 0, column, K)
        total += both * 0.5
    tl.store(out + row[:, None] * K + column, total, inside[:, None])


@triton.jit
def _sliced(  # type: ignore[no-untyped-def]
    values, index, weights, row, inside, read, column, CORNERS: tl.constexpr, K: tl.constexpr
):
    total = tl.zeros(read.shape, values.dtype.element_ty)
    for corner in tl.static_range(CORNERS):
        entry = row * CORNERS + corner
        source = tl.load(index + entry, inside, 0).to(tl.int64)
        weight = tl.load(weights + entry, inside, 0.0)
        total += weight[:, None] * tl.load(values + source[:, None] * K + column[None, :], read, 0.0)
    return total


@triton.jit
def _slice_kernel(  # type: ignore[no-untyped-def]
    base,
    out,
    rows,
    values,
    index,
    weights,
    coupling,
    values2,
    index2,
    weights2,
    coupling2,
    SOFTMAX: tl.constexpr,
    CORNERS: tl.constexpr,
    CORNERS2: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    inside = row < rows
    read = inside[:, None] & (column < K)[None, :]
    # Columns that are not there must not win.
    scores = tl.load(base + row[:, None] * K + column[None, :], read, float("-inf"))
    scores += coupling * _sliced(values, index, weights, row, inside, read, column, CORNERS, K)
    if CORNERS2:
        scores += coupling2 * _sliced(values2, index2, weights2, row, inside, read, column, CORNERS2, K)
    if SOFTMAX:
        scores = tl.exp(scores - tl.max(scores, 1)[:, None])
        scores = scores / tl.sum(scores, 1)[:, None]
    tl.store(out + row[:, None] * K + column[None, :], scores, read)


def gather(index: Tensor, starts: Tensor, ends: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """``out[r] = sum(weights[e] * values[index[e]] for starts[r] <= e < ends[r])``, values (n, K), contiguous."""
    assert values.is_contiguous()
    rows, columns = starts.numel(), values.shape[1]
    out = values.new_empty(rows, columns)
    width, threads, grid = _tile(rows, columns)
    with torch.cuda.device_of(values):
        _gather_kernel[grid](
            *(values, index, weights, starts, ends, out, rows),
            *(columns, width, threads, _AHEAD),
            num_warps=threads // 32,
        )
    return out


def blur(values: Tensor, neighbours: Sequence[Tensor]) -> Tensor:
    """Values (n, K), contiguous, after the blur ``x[v] + (x[a] + x[b]) / 2`` along each axis in turn.

    An axis has the neighbours (n, 2), -1 where there is none.
    """
    assert values.is_contiguous()
    rows, columns = values.shape
    width, threads, grid = _tile(rows, columns)
    with torch.cuda.device_of(values):
        for start in range(0, len(neighbours), 2):
            first, second = neighbours[start], neighbours[min(start + 1, len(neighbours) - 1)]
            out = torch.empty_like(values)
            _blur_kernel[grid](
                *(values, first, second, out, rows),
                *(first is not second, columns, width, threads),
                num_warps=threads // 32,
            )
            values = out
    return values


Slice = tuple[Tensor, Tensor, Tensor, float]


def add_slices(base: Tensor, slices: Sequence[Slice], *, softmax: bool) -> Tensor:
    """``base`` (points, K) ``+ coupling * slice(values)`` of each, or the softmax of that.

    A slice is an index and weights, as many entries a point, values (n, K) and its coupling; one or two of them
    share a pass over the points. ``base`` and values are contiguous.
    """
    points, columns = base.shape
    cols = triton.next_power_of_2(columns)
    block, warps = _MANY if cols >= 16 else _FEW
    block = max(1, block // cols)
    for start in range(0, len(slices), 2):
        pair = slices[start : start + 2]
        assert base.is_contiguous()
        assert all(values.is_contiguous() for _, _, values, _ in pair)
        out = torch.empty_like(base)
        arguments = [(values, index, weights, coupling) for index, weights, values, coupling in (pair[0], pair[-1])]
        corners = [index.numel() // points for index, _, _, _ in pair] + [0]
        last = start + 2 >= len(slices)
        with torch.cuda.device_of(base):
            _slice_kernel[(triton.cdiv(points, block),)](
                *(base, out, points, *arguments[0], *arguments[1]),
                *(softmax and last, corners[0], corners[1], columns, block, cols),
                num_warps=warps,
            )
        base = out
    return base


def _tile(rows: int, columns: int) -> tuple[int, int, tuple[int]]:
    """Columns a thread, threads of a program, programs."""
    width = math.gcd(columns, 4)
    threads = max(_THREADS, triton.next_power_of_2(columns // width))
    return width, threads, (triton.cdiv(rows, threads // (columns // width)),)
