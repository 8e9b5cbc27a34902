"""The permutohedral lattice in plain torch operations: the same lattice as the native engine's.

Every linear step of the filter (splat, blur along an axis, slice) is a sparse matrix whose rows are gathered
and summed by one ``embedding_bag``: no atomics, so the result is the same in every run; nothing of the size
``points * (dimensions + 1) * labels`` is ever written; and the adjoint is the same three steps with the axes
in the opposite order. Source: Adams, Baek & Davis, Fast High-Dimensional Filtering Using the Permutohedral
Lattice, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_KEY_LIMIT = 2**62


@dataclass(frozen=True)
class Gather:
    """A sparse matrix in rows: ``out[r] = sum(weights[e] * values[index[e]] for e in row r)``."""

    index: Tensor  # int32 or int64 (entries,)
    offsets: Tensor  # same dtype (rows + 1,)
    weights: Tensor  # (entries,)

    def __call__(self, values: Tensor) -> Tensor:
        return F.embedding_bag(
            self.index,
            values,
            self.offsets,
            per_sample_weights=self.weights,
            mode="sum",
            include_last_offset=True,
        )

    def repeat(self, times: int, columns: int) -> Gather:
        """The block-diagonal matrix that holds this one (of ``columns`` columns) ``times`` times."""
        entries, rows = self.index.numel(), self.offsets.numel() - 1
        kind = _index_dtype(times * max(entries, columns, rows))
        step = torch.arange(times, device=self.index.device, dtype=kind)[:, None]
        last = self.offsets.new_tensor([times * entries], dtype=kind)
        return Gather(
            (self.index.to(kind) + step * columns).reshape(-1),
            torch.cat([(self.offsets[:-1].to(kind) + step * entries).reshape(-1), last]),
            self.weights.repeat(times),
        )


@dataclass(frozen=True)
class Lattice:
    """Points embedded in a lattice: ``splat`` to the vertices, ``blurs`` along each axis, ``slice`` back.

    ``splat`` and ``slice`` hold the same barycentric weights; ``order`` maps the entries of ``splat`` to
    those of ``slice``, so that a weight a point can be folded into either. ``scale`` belongs to the blur.
    """

    points: int
    vertices: int
    splat: Gather
    blurs: tuple[Gather, ...]
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
    rank = torch.zeros(corners, points, dtype=torch.int64, device=features.device)
    for i in range(dims):
        for j in range(i + 1, corners):
            lower = rest[i] < rest[j]  # a tie goes to the lower axis, as in the reference: the vertex set depends on it
            rank[i] += lower
            rank[j] += ~lower
    rank += nearest.sum(0).to(torch.int64)
    back = (rank < 0).to(torch.int64) - (rank > dims).to(torch.int64)
    rank += back * corners
    nearest += back

    offset = (elevated - nearest * corners) * (1.0 / corners)
    weights = features.new_zeros(points, corners + 1)
    place = (dims - rank).t().contiguous()
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


def _blur(keys: Tensor, strides: Sequence[int], axis: int, kind: torch.dtype, dtype: torch.dtype) -> Gather:
    """The blur 1/2, 1, 1/2 along one axis over sorted vertex names; a missing neighbour counts as 0."""
    vertices, corners = keys.numel(), len(strides) + 1
    along = strides[axis] if axis < len(strides) else 0
    # The neighbour is +d along the axis and -1 along all others; colour 0 borrows from every quotient.
    step = torch.where(keys % corners == 0, along - sum(strides) + corners - 1, along - 1)
    wanted = keys + step
    found = torch.searchsorted(keys, wanted).clamp_(max=vertices - 1)
    below = (keys[found] == wanted).nonzero().squeeze(1)  # vertices that have a next one along the axis
    above = found[below]  # the next one of each
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
    return Gather(index, offsets.to(kind), weights)


def _index_dtype(entries: int) -> torch.dtype:
    return torch.int32 if entries < 2**31 else torch.int64
