"""The lattice's filter and a step of mean field by Triton, for a GPU: whole rows are read 16 bytes a thread.

torch's ``embedding_bag`` gives a row of values one thread a column and took nine tenths of the filter's time on an
H100. No atomics: every sum has an order of its own, the same bits in every run.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

# Threads of a program, and how many entries of a row a thread reads at once.
_THREADS, _AHEAD = 128, 2
# Values of a program that sums across rows or columns, and its warps, measured on an H100 at 4 and 24 columns: of few
# columns a warp has many rows.
_FEW, _MANY = (128, 1), (256, 2)
_PIECE_VALUES, _PIECE_WARPS = 1024, 2
_PIXELS = 64  # of a program that turns maps into rows, or back


@triton.jit
def _place(rows, K: tl.constexpr, WIDTH: tl.constexpr, THREADS: tl.constexpr):
    """The row of each thread, whether there is one, and its columns (THREADS, WIDTH) of the K."""
    PARTS: tl.constexpr = K // WIDTH
    ROWS: tl.constexpr = THREADS // PARTS
    thread = tl.arange(0, THREADS)
    local = thread // PARTS
    row = tl.program_id(0).to(tl.int64) * ROWS + local
    column = (thread % PARTS * WIDTH)[:, None] + tl.arange(0, WIDTH)[None, :]
    return row, (local < ROWS) & (row < rows), column


@triton.jit
def _read(values, row, live, column, K: tl.constexpr):
    return tl.load(values + row.to(tl.int64)[:, None] * K + column, live[:, None], 0.0)


@triton.jit
def _gather_kernel(
    values,
    index,
    weights,
    offsets,
    out,
    rows,
    longest,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    THREADS: tl.constexpr,
    AHEAD: tl.constexpr,
):
    row, inside, column = _place(rows, K, WIDTH, THREADS)
    start = tl.load(offsets + row, inside, 0)
    end = tl.load(offsets + row + 1, inside, 0)
    inside = inside & (end - start <= longest)
    end = tl.where(inside, end, start)
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
def _long_kernel(
    values,
    index,
    weights,
    starts,
    ends,
    to,
    out,
    DIRECT: tl.constexpr,
    K: tl.constexpr,
    ENTRIES: tl.constexpr,
    COLS: tl.constexpr,
):
    piece = tl.program_id(0)
    start = tl.load(starts + piece)
    end = tl.load(ends + piece)
    column = tl.arange(0, COLS)
    total = tl.zeros((ENTRIES, COLS), values.dtype.element_ty)
    for step in range(start, end, ENTRIES):
        entry = step + tl.arange(0, ENTRIES)
        live = entry < end
        read = live[:, None] & (column < K)[None, :]
        if DIRECT:
            total += tl.load(values + entry.to(tl.int64)[:, None] * K + column[None, :], read, 0.0)
        else:
            source = tl.load(index + entry, live, 0).to(tl.int64)
            weight = tl.load(weights + entry, live, 0.0)
            total += weight[:, None] * tl.load(values + source[:, None] * K + column[None, :], read, 0.0)
    tl.store(out + tl.load(to + piece).to(tl.int64) * K + column, tl.sum(total, 0), column < K)


@triton.jit
def _blurred(values, neighbors, row, live, column, K: tl.constexpr):
    before = tl.load(neighbors + 2 * row, live, -1)
    after = tl.load(neighbors + 2 * row + 1, live, -1)
    both = _read(values, before, before >= 0, column, K) + _read(values, after, after >= 0, column, K)
    return _read(values, row, live, column, K) + both * 0.5


@triton.jit
def _blur_kernel(
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
    if TWO:  # the first axis of each neighbor along the second, rather than write and read all rows between them
        before = tl.load(second + 2 * row, inside, -1).to(tl.int64)
        after = tl.load(second + 2 * row + 1, inside, -1).to(tl.int64)
        both = _blurred(values, first, before, before >= 0, column, K)
        both += _blurred(values, first, after, after >= 0, column, K)
        total += both * 0.5
    tl.store(out + row[:, None] * K + column, total, inside[:, None])


@triton.jit
def _sliced(values, index, weights, row, inside, read, column, CORNERS: tl.constexpr, K: tl.constexpr):
    total = tl.zeros(read.shape, values.dtype.element_ty)
    for corner in tl.static_range(CORNERS):
        entry = row * CORNERS + corner
        source = tl.load(index + entry, inside, 0).to(tl.int64)
        weight = tl.load(weights + entry, inside, 0.0)
        total += weight[:, None] * tl.load(values + source[:, None] * K + column[None, :], read, 0.0)
    return total


@triton.jit
def _softmax(scores):
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    return scores / tl.sum(scores, 1)[:, None]


@triton.jit
def _slice_kernel(
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
        scores = _softmax(scores)
    tl.store(out + row[:, None] * K + column[None, :], scores, read)


@triton.jit
def _start_kernel(
    unary, logits, marginals, pixels, LABELS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    inside = (pixel < pixels)[:, None]
    place = column.to(tl.int64)[None, :] * pixels + pixel[:, None]
    energy = tl.load(unary + image * LABELS * pixels + place, inside & (column < LABELS)[None, :], float("inf"))
    place = (image * pixels + pixel)[:, None] * K + column[None, :]
    live = inside & (column < K)[None, :]
    tl.store(logits + place, -energy, live)
    tl.store(marginals + place, _softmax(-energy), live)


@triton.jit
def _finish_kernel(rows, maps, pixels, LABELS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    live = (pixel < pixels)[:, None] & (column < LABELS)[None, :]
    values = tl.load(rows + (image * pixels + pixel)[:, None] * K + column[None, :], live, 0.0)
    tl.store(maps + image * LABELS * pixels + column.to(tl.int64)[None, :] * pixels + pixel[:, None], values, live)


def gather(index: Tensor, offsets: Tensor, weights: Tensor, values: Tensor, out: Tensor, longest: int) -> None:
    """``out[r] = sum(weights[e] * values[index[e]] for offsets[r] <= e < offsets[r + 1])``; longer rows are left alone.

    ``values`` (n, K) and ``out`` (rows or more, K) are contiguous.
    """
    assert values.is_contiguous()
    rows, columns = offsets.numel() - 1, values.shape[1]
    width, threads, grid = _tile(rows, columns)
    with torch.cuda.device_of(values):
        _gather_kernel[grid](
            *(values, index, weights, offsets, out, rows, longest),
            *(columns, width, threads, _AHEAD),
            num_warps=threads // 32,
        )


def gather_long(
    index: Tensor | None, weights: Tensor | None, starts: Tensor, ends: Tensor, to: Tensor, values: Tensor, out: Tensor
) -> None:
    """``gather`` of rows that one program each sums, ``out[to[r]]``; without an index, of ``values[starts:ends]``."""
    columns = values.shape[1]
    cols = triton.next_power_of_2(columns)
    with torch.cuda.device_of(values):
        _long_kernel[(starts.numel(),)](
            *(values, index, weights, starts, ends, to, out),
            *(index is None, columns, max(1, _PIECE_VALUES // cols), cols),
            num_warps=_PIECE_WARPS,
        )


def blur(values: Tensor, neighbors: Sequence[Tensor]) -> Tensor:
    """Values (n, K), contiguous, after the blur ``x[v] + (x[a] + x[b]) / 2`` along each axis in turn.

    An axis has the neighbors (n, 2), -1 where there is none.
    """
    assert values.is_contiguous()
    rows, columns = values.shape
    width, threads, grid = _tile(rows, columns)
    with torch.cuda.device_of(values):
        for start in range(0, len(neighbors), 2):
            first, second = neighbors[start], neighbors[min(start + 1, len(neighbors) - 1)]
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
            _slice_kernel[(triton.cdiv(points, rows),)](
                *(base, out, points, *arguments[0], *arguments[1]),
                *(softmax and last, corners[0], corners[1], columns, rows, cols),
                num_warps=warps,
            )
        base = out
    return base


def start(unary: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (B, K, H, W), contiguous -> logits and their softmax in rows of whole 16 bytes.

    Labels that are added cannot win.
    """
    assert unary.is_contiguous()
    images, labels, height, width = unary.shape
    columns, pixels = labels + -labels % 4, height * width
    logits = unary.new_empty(images * pixels, columns)
    marginals = torch.empty_like(logits)
    with torch.cuda.device_of(unary):
        _start_kernel[(triton.cdiv(pixels, _PIXELS), images)](
            *(unary, logits, marginals, pixels),
            *(labels, columns, _PIXELS, triton.next_power_of_2(columns)),
        )
    return logits, marginals


def finish(rows: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """Rows (B * H * W, K or more) of pixels -> maps of ``size`` (B, K, H, W), contiguous."""
    images, labels, height, width = size
    pixels, columns = height * width, rows.shape[1]
    maps = rows.new_empty(size)
    with torch.cuda.device_of(rows):
        _finish_kernel[(triton.cdiv(pixels, _PIXELS), images)](
            *(rows, maps, pixels),
            *(labels, columns, _PIXELS, triton.next_power_of_2(columns)),
        )
    return maps


def _tile(rows: int, columns: int) -> tuple[int, int, tuple[int]]:
    """Columns a thread, threads of a program, programs."""
    width = math.gcd(columns, 4)
    threads = max(_THREADS, triton.next_power_of_2(columns // width))
    return width, threads, (triton.cdiv(rows, threads // (columns // width)),)
