"""The programs of ``triton_filter``: the lattice's filter and a step of mean field."""

# Triton kernels have untyped arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


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
def gather_kernel(
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
def long_kernel(
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
def blur_kernel(
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
def slice_kernel(
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
def start_kernel(
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
def finish_kernel(rows, maps, pixels, LABELS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    live = (pixel < pixels)[:, None] & (column < LABELS)[None, :]
    values = tl.load(rows + (image * pixels + pixel)[:, None] * K + column[None, :], live, 0.0)
    tl.store(maps + image * LABELS * pixels + column.to(tl.int64)[None, :] * pixels + pixel[:, None], values, live)
