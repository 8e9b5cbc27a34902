"""The permutohedral lattice in plain torch operations: the same lattice as the native engine's.

Every linear step of the filter (splat, blur along an axis, slice) is a sparse matrix whose rows are gathered
and summed by one ``embedding_bag``: no atomics, so the result is the same in every run; nothing of the size
``points * (dimensions + 1) * labels`` is ever written; and the adjoint is the same three steps with the axes
in the opposite order. Source: Adams, Baek & Davis, Fast High-Dimensional Filtering Using the Permutohedral
Lattice, 2010.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

_KEY_LIMIT = 2**62
# Entries that a GPU's thread sums one after another. Where many points share a vertex, as in a white background, a
# row of the splat has thousands; it is then summed in pieces.
_LONGEST = 32


@cache
def triton_gather(device: torch.device) -> ModuleType | None:
    """The Triton kernels if they run on this device: they need a GPU, triton, and a C compiler for its launcher."""
    if device.type != "cuda":
        return None
    try:
        from segbatch.crf import triton_gather as kernels

        one = torch.ones(1, 1, device=device)
        zero = torch.zeros(1, device=device, dtype=torch.int32)
        kernels.gather(zero, zero, zero + 1, one[0], one)
    except Exception as error:  # whatever triton, its compiler or the driver raise: there is another way
        logger.warning("the dense CRF runs without Triton on %s, several times slower: %s", device, error)
        return None
    return kernels


@dataclass(frozen=True)
class Gather:
    """A sparse matrix in rows: ``out[r] = sum(weights[e] * values[index[e]] for e in row r)``.

    ``long``, for a GPU, says how long rows are summed in pieces.
    """

    index: Tensor  # int32 or int64 (entries,)
    offsets: Tensor  # same dtype (rows + 1,)
    weights: Tensor  # (entries,)
    long: LongRows | None = None

    def __call__(self, values: Tensor) -> Tensor:
        kernels = triton_gather(values.device)
        if kernels is None:
            return F.embedding_bag(
                self.index,
                values,
                self.offsets,
                per_sample_weights=self.weights,
                mode="sum",
                include_last_offset=True,
            )
        starts, ends = (self.offsets[:-1], self.offsets[1:]) if self.long is None else self.long.pieces
        out: Tensor = kernels.gather(self.index, starts, ends, self.weights, values)
        return out if self.long is None else self.long.join(out)

    def repeat(self, times: int, columns: int) -> Gather:
        """The block-diagonal matrix that holds this one (of ``columns`` columns) ``times`` times."""
        entries, rows = self.index.numel(), self.offsets.numel() - 1
        kind = _index_dtype(times * max(entries, columns, rows))
        step = torch.arange(times, device=self.index.device, dtype=kind)[:, None]
        last = self.offsets.new_tensor([times * entries], dtype=kind)
        repeated = Gather(
            (self.index.to(kind) + step * columns).reshape(-1),
            torch.cat([(self.offsets[:-1].to(kind) + step * entries).reshape(-1), last]),
            self.weights.repeat(times),
        )
        return repeated.in_pieces(self.long.longest) if self.long else repeated

    def in_pieces(self, longest: int) -> Gather:
        """The same matrix, of whose rows no more than ``longest`` entries are summed at once; none may be empty."""
        sizes = self.offsets.diff()
        more = torch.div(sizes - 1, longest, rounding_mode="floor")  # pieces of each row after its first
        rows = more.nonzero().squeeze(1)
        if not rows.numel():
            return self
        more, kind = more[rows], self.offsets.dtype
        last = more.cumsum(0)
        of = torch.repeat_interleave(torch.arange(rows.numel(), device=rows.device), more)
        number = torch.arange(of.numel(), device=rows.device) - (last - more)[of] + 1
        starts = (self.offsets[rows[of]] + number * longest).to(kind)
        ends = torch.minimum(starts + longest, self.offsets[rows[of] + 1])
        pieces = (
            torch.cat([self.offsets[:-1], starts]),
            torch.cat([torch.minimum(self.offsets[:-1] + longest, self.offsets[1:]), ends]),
        )
        total = self.offsets.numel() - 1
        rest = Gather(
            torch.arange(total, total + of.numel(), device=rows.device, dtype=kind),
            torch.cat([last.new_zeros(1), last]).to(kind),
            self.weights.new_ones(of.numel()),
        )
        return replace(self, long=LongRows(longest, pieces, rows, rest.in_pieces(longest)))


@dataclass(frozen=True)
class LongRows:
    """The pieces of a matrix's rows: the first of each, then those that are left of ``rows``, which ``rest`` sums."""

    longest: int
    pieces: tuple[Tensor, Tensor]  # their first entries, and the ends
    rows: Tensor
    rest: Gather

    def join(self, sums: Tensor) -> Tensor:
        """Sums of the pieces (pieces, K) -> of the rows, in the same memory."""
        sums[self.rows] += self.rest(sums)
        return sums[: len(sums) - self.rest.index.numel()]


@dataclass(frozen=True)
class Blur:
    """``out[v] = x[v] + (x[a] + x[b]) / 2`` along an axis; a and b, the vertices beside v, count as 0 if missing.

    Symmetric, so that it is its own adjoint. ``neighbours`` is for Triton; without it, ``gather`` is there.
    """

    neighbours: Tensor | None  # int32 or int64 (vertices, 2), -1 where there is none
    gather: Gather | None

    def repeat(self, times: int, vertices: int) -> Blur:
        """The blur of ``times`` lattices of ``vertices`` vertices."""
        if self.neighbours is None:
            assert self.gather is not None
            return Blur(None, self.gather.repeat(times, vertices))
        kind = _index_dtype(times * vertices)
        beside = self.neighbours.to(kind)
        step = torch.arange(times, device=beside.device, dtype=kind)[:, None, None] * vertices
        return Blur(torch.where(beside < 0, -1, beside + step).reshape(-1, 2), None)


def blur(values: Tensor, axes: Sequence[Blur]) -> Tensor:
    """Values (vertices, K), contiguous, blurred along one axis after another."""
    beside = [axis.neighbours for axis in axes if axis.neighbours is not None]
    if beside:
        kernels = triton_gather(values.device)
        assert kernels is not None
        blurred: Tensor = kernels.blur(values, beside)
        return blurred
    for axis in axes:
        assert axis.gather is not None
        values = axis.gather(values)
    return values


@dataclass(frozen=True)
class Lattice:
    """Points embedded in a lattice: ``splat`` to the vertices, ``blurs`` along each axis, ``slice`` back.

    ``splat`` and ``slice`` hold the same barycentric weights; ``order`` maps the entries of ``splat`` to
    those of ``slice``, so that a weight a point can be folded into either. ``scale`` belongs to the blur.
    """

    points: int
    vertices: int
    splat: Gather
    blurs: tuple[Blur, ...]
    slice: Gather
    order: Tensor
    scale: float

    def repeat(self, times: int) -> Lattice:
        """The lattice of ``times`` images that share this one's features (a spatial kernel's)."""
        if times == 1:
            return self
        entries = self.order.numel()
        kind = _index_dtype(times * entries)
        step = torch.arange(times, device=self.order.device, dtype=kind)[:, None]
        return Lattice(
            self.points * times,
            self.vertices * times,
            self.splat.repeat(times, self.points),
            tuple(blur.repeat(times, self.vertices) for blur in self.blurs),
            self.slice.repeat(times, self.vertices),
            (self.order.to(kind) + step * entries).reshape(-1),
            self.scale,
        )


@torch.no_grad()
def build_lattice(features: Tensor, dtype: torch.dtype = torch.float32) -> Lattice:
    """The lattice of float32 features (B, N, d), already divided by their standard deviations.

    The B images do not touch one another; point ``b * N + n`` is row n of image b. The geometry is computed
    in float32, whatever ``dtype`` the weights are wanted in, and in the reference's order of operations, so
    that every engine puts a point into the same simplex. Raises ``ValueError`` if the features are not finite
    or lie so far apart that a vertex has no 62-bit name.
    """
    if features.dim() != 3 or 0 in features.shape:
        raise ValueError(f"features have shape {tuple(features.shape)}; give (images, points, dimensions), none 0")
    images, points, dims = features.shape
    features = features.to(torch.float32).reshape(-1, dims)
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features are not finite; look for a theta of 0 or NaN in the image or the features")
    base, rank, barycentric = _embed(features)
    keys, strides = _pack(base, rank, images)

    # One stable sort names the vertices, orders the splat and makes the keys searchable for neighbours.
    in_order, order = torch.sort(keys.reshape(-1), stable=True)
    starts = torch.ones_like(in_order, dtype=torch.bool)
    torch.ne(in_order[1:], in_order[:-1], out=starts[1:])
    first = starts.nonzero().squeeze(1)
    vertex_keys, vertices = in_order[first], first.numel()
    kind = _index_dtype(order.numel())
    vertex_of = torch.empty_like(order)
    vertex_of[order] = starts.cumsum(0) - 1

    weights = barycentric.to(dtype).reshape(-1)
    corners = dims + 1
    splat = Gather(
        torch.div(order, corners, rounding_mode="floor").to(kind),
        torch.cat([first, first.new_tensor([order.numel()])]).to(kind),
        weights[order],
    )
    if features.is_cuda:
        splat = splat.in_pieces(_LONGEST)
    rows = torch.arange(0, order.numel() + 1, corners, device=order.device, dtype=kind)
    blurs = tuple(_blur(vertex_keys, strides, axis, kind, dtype) for axis in range(corners))
    return Lattice(
        images * points,
        vertices,
        splat,
        blurs,
        Gather(vertex_of.to(kind), rows, weights),
        order.to(kind),
        1.0 / (1.0 + 2.0**-dims),
    )


def _embed(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features (P, d) -> (base (P, d) in units of d + 1, rank (P, d), barycentric weights (P, d + 1))."""
    points, dims = features.shape
    corners = dims + 1
    # So that the blur has a standard deviation of one; rounded to float32 where the reference does.
    spread = float(np.float32(math.sqrt(2.0 / 3.0) * corners))
    elevated = features.new_empty(corners, points)
    above = features.new_zeros(points)
    for axis in range(dims, 0, -1):
        scaled = features[:, axis - 1] * (1.0 / math.sqrt((axis + 1.0) * axis) * spread)
        elevated[axis] = above - axis * scaled
        above = above + scaled
    elevated[0] = above

    nearest = torch.round(elevated * (1.0 / corners))  # the closest vertex of colour 0, not yet on the plane
    rest = elevated - nearest * corners
    rank = torch.zeros(corners, points, dtype=torch.int32, device=features.device)
    for i in range(dims):
        for j in range(i + 1, corners):
            lower = rest[i] < rest[j]  # a tie goes to the lower axis, as in the reference: the vertex set depends on it
            rank[i] += lower
            rank[j] += ~lower
    rank += nearest.sum(0).to(torch.int32)
    back = (rank < 0).to(torch.int32) - (rank > dims).to(torch.int32)
    rank += back * corners
    nearest += back

    offset = (elevated - nearest * corners) * (1.0 / corners)
    weights = features.new_zeros(points, corners + 1)
    place = (dims - rank).t().to(torch.int64)
    offset = offset.t().contiguous()
    # One value a column and point each: two exact scatters, no order of summation to choose.
    weights.scatter_(1, place, offset)
    weights[:, 1:] -= torch.zeros_like(weights[:, 1:]).scatter_(1, place, offset)
    weights[:, 0] += 1.0 + weights[:, corners]
    return nearest[:dims].t().to(torch.int64), rank[:dims].t(), weights[:, :corners].contiguous()


def _pack(base: Tensor, rank: Tensor, images: int) -> tuple[Tensor, list[int]]:
    """Names of the d + 1 vertices around each point, int64 (P, d + 1), and the stride of each coordinate.

    The coordinates of a vertex of colour r are all r modulo d + 1; only the quotients and r are stored. One
    quotient on each side is left free, so that a neighbour's name never runs into another coordinate.
    """
    points, dims = base.shape
    corners = dims + 1
    low = base.amin(0) - 2
    spans = [int(span) for span in (base.amax(0) - low + 2).tolist()]
    if images * corners * math.prod(spans) >= _KEY_LIMIT:
        raise ValueError(
            f"the features span {spans} lattice cells in {images} image(s), more than 62 bits can name; "
            "use a larger theta (a kernel this narrow joins no two pixels)"
        )
    strides = [0] * dims
    step = corners
    for axis in reversed(range(dims)):
        strides[axis], step = step, step * spans[axis]
    stride = torch.tensor(strides, device=base.device)
    image = torch.arange(images, device=base.device).repeat_interleave(points // images)
    origin = ((base - low) * stride).sum(1) + image * step
    keys = origin[:, None] + torch.arange(corners, device=base.device)
    for colour in range(1, corners):
        keys[:, colour] -= ((rank > dims - colour) * stride).sum(1)
    return keys, strides


def _blur(keys: Tensor, strides: Sequence[int], axis: int, kind: torch.dtype, dtype: torch.dtype) -> Blur:
    """The blur along one axis over sorted vertex names."""
    vertices, corners = keys.numel(), len(strides) + 1
    along = strides[axis] if axis < len(strides) else 0
    # The neighbour is +d along the axis and -1 along all others; colour 0 borrows from every quotient.
    step = torch.where(keys % corners == 0, along - sum(strides) + corners - 1, along - 1)
    wanted = keys + step
    found = torch.searchsorted(keys, wanted).clamp_(max=vertices - 1)
    below = (keys[found] == wanted).nonzero().squeeze(1)  # vertices that have a next one along the axis
    above = found[below]  # the next one of each
    if triton_gather(keys.device):
        neighbours = torch.full((vertices, 2), -1, dtype=kind, device=keys.device)
        neighbours[above, 0] = below.to(kind)
        neighbours[below, 1] = above.to(kind)
        return Blur(neighbours, None)
    sizes = torch.ones(vertices, dtype=torch.int64, device=keys.device)
    sizes[below] += 1
    sizes[above] += 1
    offsets = torch.zeros(vertices + 1, dtype=torch.int64, device=keys.device)
    torch.cumsum(sizes, 0, out=offsets[1:])
    # A row is the vertex itself, its next one if any, its previous one if any.
    own, entries = offsets[:-1], 2 * below.numel() + vertices
    index = torch.empty(entries, dtype=kind, device=keys.device)
    index[own] = torch.arange(vertices, dtype=kind, device=keys.device)
    index[own[below] + 1] = above.to(kind)
    index[offsets[above + 1] - 1] = below.to(kind)
    weights = torch.full((entries,), 0.5, dtype=dtype, device=keys.device)
    weights[own] = 1.0
    return Blur(None, Gather(index, offsets.to(kind), weights))


def _index_dtype(entries: int) -> torch.dtype:
    return torch.int32 if entries < 2**31 else torch.int64
