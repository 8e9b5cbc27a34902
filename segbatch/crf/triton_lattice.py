"""Build a lattice by Triton, for a GPU. torch needs hundreds of operations, which take longer to launch than to run."""

# Triton kernels have untyped arguments, and extend tuples by + only.
# mypy: disable-error-code="no-untyped-def,assignment"
# ruff: noqa: RUF005

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_DIMENSIONS = 8  # of features: ``_embed_kernel`` keeps them in registers and compares each pair
_THREADS = 128


@triton.jit
def _nearest(x):
    """The nearest whole number, halves to the even one, as ``torch.round``."""
    below = tl.floor(x)
    part = x - below
    odd = below - 2.0 * tl.floor(below * 0.5) == 1.0
    return tl.where((part > 0.5) | ((part == 0.5) & odd), below + 1.0, below)


@triton.jit
def _embed_kernel(
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
    for color in tl.static_range(CORNERS):
        name = key + color
        weight = tl.zeros((THREADS,), tl.float32)
        less = tl.zeros((THREADS,), tl.float32)
        for i in tl.static_range(CORNERS):
            weight = tl.where(ranks[i] == D - color, offsets[i], weight)
            less = tl.where(ranks[i] == CORNERS - color, offsets[i], less)
            if i < D:
                name -= tl.where(ranks[i] > D - color, tl.load(strides + i), 0)
        weight = weight + (1.0 - last) if color == 0 else weight - less
        tl.store(keys + point * CORNERS + color, name.to(keys.dtype.element_ty), inside)
        tl.store(weights + point * CORNERS + color, weight, inside)


@triton.jit
def _number_kernel(
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
def _neighbors_kernel(names, steps, out, vertices, BITS, CORNERS: tl.constexpr, THREADS: tl.constexpr):
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


def embed(
    features: Tensor,
    scales: Sequence[float],
    strides: Sequence[int],
    images: int,
    step: int,
    origin: int,
    kind: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return names (P, d + 1) of the vertices around each point, and their weights, of features float32 (P, d).

    A name is ``origin + image * step``, plus the quotient of each coordinate times its stride, plus the color. The
    results equal those of ``torch_lattice._embed`` bit for bit.
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
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Do the work of ``torch_lattice._number`` in one pass."""
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
    return names, (index, first, in_order), vertex, back


def neighbors(names: Tensor, steps: Sequence[tuple[int, int]], kind: torch.dtype) -> Tensor:
    """Return the vertices before and after each vertex along every axis, (axes, V, 2), -1 for none.

    Args:
        names: Sorted names of the vertices.
        steps: For each axis, the step to the next name for color 0, and for the other colors.
    """
    vertices, axes = names.numel(), len(steps)
    out = torch.full((axes, vertices, 2), -1, dtype=kind, device=names.device)
    with torch.cuda.device_of(names):
        _neighbors_kernel[(triton.cdiv(vertices, _THREADS), axes)](
            *(names, torch.tensor(steps, device=names.device), out, vertices, vertices.bit_length()),
            *(axes, _THREADS),
            num_warps=_THREADS // 32,
        )
    return out
