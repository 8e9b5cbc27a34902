"""The lattice and mean field as Triton kernels, for a GPU: few launches, whole rows read 16 bytes a thread, no atomics.

torch's ``embedding_bag`` gives a row of values one thread a column and took nine tenths of the filter's time on an
H100, and the hundreds of small operations that build a lattice more time to launch than to run. Every sum has an order
of its own: the same bits in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_DIMENSIONS = 8  # of features: ``_embed_kernel`` keeps them in registers, each pair compared
# Threads of a program, and how many entries of a row a thread reads at once.
_THREADS, _AHEAD = 128, 2
# Values of a program that sums across rows or columns, and its warps, measured on an H100 at 4 and 24 columns: of few
# columns a warp has many rows.
_FEW, _MANY = (128, 1), (256, 2)
_PIECE_VALUES, _PIECE_WARPS = 1024, 4


@triton.jit
def _nearest(x):  # type: ignore[no-untyped-def]
    """The nearest whole number, halves to the even one, as ``torch.round``."""
    below = tl.floor(x)
    part = x - below
    odd = below - 2.0 * tl.floor(below * 0.5) == 1.0
    return tl.where((part > 0.5) | ((part == 0.5) & odd), below + 1.0, below)


@triton.jit
def _embed_kernel(  # type: ignore[no-untyped-def]
    features,
    scales,
    strides,
    keys,
    weights,
    points,
    each,
    step,
    origin,
    D: tl.constexpr,
    THREADS: tl.constexpr,
):
    CORNERS: tl.constexpr = D + 1
    SHRINK: tl.constexpr = 1.0 / CORNERS
    point = tl.program_id(0).to(tl.int64) * THREADS + tl.arange(0, THREADS)
    inside = point < points
    above = tl.zeros((THREADS,), tl.float32)
    elevated = ()
    for up in tl.static_range(D):
        scaled = tl.load(features + point * D + (D - 1 - up), inside, 0.0) * tl.load(scales + (D - 1 - up))
        elevated = (above - (D - up) * scaled,) + elevated
        above = above + scaled
    elevated = (above,) + elevated
    nearest = ()
    rest = ()
    total = tl.zeros((THREADS,), tl.float32)
    for i in tl.static_range(CORNERS):
        whole = _nearest(elevated[i] * SHRINK)
        nearest = nearest + (whole,)
        rest = rest + (elevated[i] - whole * CORNERS,)
        total = total + whole
    # Rank and offset of each axis; a tie goes to the lower one.
    key = origin + point // each * step
    ranks = ()
    offsets = ()
    for i in tl.static_range(CORNERS):
        rank = total.to(tl.int32)
        for j in tl.static_range(CORNERS):
            if j < i:
                rank += (rest[j] >= rest[i]).to(tl.int32)
            if j > i:
                rank += (rest[j] > rest[i]).to(tl.int32)
        back = (rank < 0).to(tl.int32) - (rank > D).to(tl.int32)
        rank += back * CORNERS
        whole = nearest[i] + back.to(tl.float32)
        if i < D:
            key += whole.to(tl.int64) * tl.load(strides + i)
        ranks = ranks + (rank,)
        offsets = offsets + ((elevated[i] - whole * CORNERS) * SHRINK,)
    last = tl.zeros((THREADS,), tl.float32)  # the offset of rank 0
    for i in tl.static_range(CORNERS):
        last = tl.where(ranks[i] == 0, offsets[i], last)
    for colour in tl.static_range(CORNERS):
        name = key + colour
        weight = tl.zeros((THREADS,), tl.float32)
        less = tl.zeros((THREADS,), tl.float32)
        for i in tl.static_range(CORNERS):
            weight = tl.where(ranks[i] == D - colour, offsets[i], weight)
            less = tl.where(ranks[i] == CORNERS - colour, offsets[i], less)
            if i < D:
                name -= tl.where(ranks[i] > D - colour, tl.load(strides + i), 0)
        weight = weight + (1.0 - last) if colour == 0 else weight - less
        tl.store(keys + point * CORNERS + colour, name.to(keys.dtype.element_ty), inside)
        tl.store(weights + point * CORNERS + colour, weight, inside)


@triton.jit
def _number_kernel(  # type: ignore[no-untyped-def]
    keys,
    order,
    number,
    weights,
    names,
    first,
    index,
    in_order,
    vertex,
    back,
    entries,
    CORNERS: tl.constexpr,
    THREADS: tl.constexpr,
):
    entry = tl.program_id(0).to(tl.int64) * THREADS + tl.arange(0, THREADS)
    inside = entry < entries
    source = tl.load(order + entry, inside, 0)
    mine = tl.load(number + entry, inside, 0)
    starts = inside & (mine != tl.load(number + entry - 1, inside & (entry > 0), -1))
    tl.store(first + mine, entry.to(first.dtype.element_ty), starts)
    tl.store(names + mine, tl.load(keys + entry, starts, 0), starts)
    tl.store(vertex + source, mine, inside)
    tl.store(back + entry, source.to(back.dtype.element_ty), inside)
    tl.store(index + entry, (source // CORNERS).to(index.dtype.element_ty), inside)
    tl.store(in_order + entry, tl.load(weights + source, inside, 0.0), inside)


@triton.jit
def _neighbours_kernel(  # type: ignore[no-untyped-def]
    names, steps, out, vertices, BITS, CORNERS: tl.constexpr, THREADS: tl.constexpr
):
    vertex = tl.program_id(0).to(tl.int64) * THREADS + tl.arange(0, THREADS)
    axis = tl.program_id(1)
    inside = vertex < vertices
    name = tl.load(names + vertex, inside, 0).to(tl.int64)
    wanted = name + tl.where(name % CORNERS == 0, tl.load(steps + 2 * axis), tl.load(steps + 2 * axis + 1))
    low = tl.zeros((THREADS,), tl.int64)
    high = low + vertices
    for _ in range(BITS):
        middle = (low + high) // 2
        seeking = inside & (low < high)
        less = tl.load(names + middle, seeking, 0) < wanted
        low = tl.where(seeking & less, middle + 1, low)
        high = tl.where(seeking & ~less, middle, high)
    found = inside & (low < vertices)
    found = found & (tl.load(names + low, found, 0) == wanted)
    out += axis.to(tl.int64) * 2 * vertices
    tl.store(out + 2 * vertex + 1, low.to(out.dtype.element_ty), found)
    tl.store(out + 2 * low, vertex.to(out.dtype.element_ty), found)


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
def _long_kernel(  # type: ignore[no-untyped-def]
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
def _softmax(scores):  # type: ignore[no-untyped-def]
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    return scores / tl.sum(scores, 1)[:, None]


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
        scores = _softmax(scores)
    tl.store(out + row[:, None] * K + column[None, :], scores, read)


@triton.jit
def _start_kernel(  # type: ignore[no-untyped-def]
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
def _finish_kernel(  # type: ignore[no-untyped-def]
    rows, maps, pixels, LABELS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLS)
    live = (pixel < pixels)[:, None] & (column < LABELS)[None, :]
    values = tl.load(rows + (image * pixels + pixel)[:, None] * K + column[None, :], live, 0.0)
    tl.store(maps + image * LABELS * pixels + column.to(tl.int64)[None, :] * pixels + pixel[:, None], values, live)


def embed(
    features: Tensor, scales: Sequence[float], strides: Sequence[int], images: int, step: int, origin: int, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Features float32 (P, d), contiguous -> names (P, d + 1) of the vertices around each point, and their weights.

    A name is ``origin + image * step``, plus the quotient of each coordinate times its stride, plus the colour. The
    arithmetic is ``torch_lattice._embed``'s, to the bit.
    """
    points, dims = features.shape
    keys = features.new_empty(points, dims + 1, dtype=kind)
    weights = features.new_empty(points, dims + 1)
    device = features.device
    with torch.cuda.device_of(features):
        _embed_kernel[(triton.cdiv(points, _THREADS),)](
            *(features, torch.tensor(scales, dtype=torch.float32, device=device), torch.tensor(strides, device=device)),
            *(keys, weights, points, points // images, step, origin),
            *(dims, _THREADS),
            num_warps=_THREADS // 32,
            enable_fp_fusion=False,  # a point on the edge of a simplex must fall on the reference's side
        )
    return keys, weights


def number(
    keys: Tensor, order: Tensor, numbers: Tensor, weights: Tensor, vertices: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sorted names of entries, the order that sorts them and the number of each one's vertex -> what a lattice holds.

    ``weights`` (P, corners) are in the entries' own order. Returns the vertices' names, their first entries (one more
    than vertices), and of the sorted entries: points, weights, vertex of each in its own order, ``order`` as narrow as
    ``numbers``.
    """
    entries, kind = order.numel(), numbers.dtype
    names, first = keys.new_empty(vertices), numbers.new_empty(vertices + 1)
    first[vertices:] = entries
    index, vertex, back = torch.empty_like(numbers), torch.empty_like(numbers), torch.empty_like(order, dtype=kind)
    in_order = weights.new_empty(entries)
    with torch.cuda.device_of(keys):
        _number_kernel[(triton.cdiv(entries, _THREADS),)](
            *(keys, order, numbers, weights, names, first, index, in_order, vertex, back, entries),
            *(weights.shape[1], _THREADS),
            num_warps=_THREADS // 32,
        )
    return names, first, index, in_order, vertex, back


def neighbours(names: Tensor, steps: Sequence[tuple[int, int]], kind: torch.dtype) -> Tensor:
    """Sorted names of vertices -> the one before and the one after each along every axis, (axes, V, 2), or -1.

    ``steps`` holds what an axis adds to a name of colour 0, and to any other.
    """
    vertices, axes = names.numel(), len(steps)
    out = torch.full((axes, vertices, 2), -1, dtype=kind, device=names.device)
    with torch.cuda.device_of(names):
        _neighbours_kernel[(triton.cdiv(vertices, _THREADS), axes)](
            *(names, torch.tensor(steps, device=names.device), out, vertices, vertices.bit_length()),
            *(axes, _THREADS),
            num_warps=_THREADS // 32,
        )
    return out


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
    rows, cols, warps = _shape(columns)
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
    """Energies (B, K, H, W), contiguous -> logits and their softmax, rows of whole 16 bytes; columns added cannot win."""
    assert unary.is_contiguous()
    images, labels, height, width = unary.shape
    columns, pixels = labels + -labels % 4, height * width
    logits = unary.new_empty(images * pixels, columns)
    marginals = torch.empty_like(logits)
    cols = triton.next_power_of_2(columns)
    with torch.cuda.device_of(unary):
        _start_kernel[(triton.cdiv(pixels, 64), images)](
            *(unary, logits, marginals, pixels),
            *(labels, columns, 64, cols),
            num_warps=4,
        )
    return logits, marginals


def finish(rows: Tensor, maps: Tensor) -> Tensor:
    """Rows (B * H * W, K or more) of pixels -> ``maps`` (B, K, H, W), contiguous, which it fills and returns."""
    images, labels, height, width = maps.shape
    pixels, columns = height * width, rows.shape[1]
    with torch.cuda.device_of(rows):
        _finish_kernel[(triton.cdiv(pixels, 64), images)](
            *(rows, maps, pixels),
            *(labels, columns, 64, triton.next_power_of_2(columns)),
            num_warps=4,
        )
    return maps


def _shape(columns: int) -> tuple[int, int, int]:
    """Rows, columns (a power of two) and warps of a program."""
    cols = triton.next_power_of_2(columns)
    values, warps = _MANY if cols >= 16 else _FEW
    return max(1, values // cols), cols, warps


def _tile(rows: int, columns: int) -> tuple[int, int, tuple[int]]:
    """Columns a thread, threads of a program, programs."""
    width = math.gcd(columns, 4)
    threads = max(_THREADS, triton.next_power_of_2(columns // width))
    return width, threads, (triton.cdiv(rows, threads // (columns // width)),)
