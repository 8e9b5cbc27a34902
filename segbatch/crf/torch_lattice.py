"""The permutohedral lattice in torch: the same lattice as the native engine's.

Each linear step of the filter (splat, blur along an axis, slice) is a sparse matrix whose rows are gathered and summed,
by ``embedding_bag`` or on a GPU by Triton. There are no atomics, so that results are the same in every run, and no
tensor of ``points * (dimensions + 1) * labels`` values. The adjoint has the same three steps with the axes in the
opposite order. Source: Adams, Baek & Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segbatch.crf.torch_sparse import Blur, Gather, MatrixBlur, TritonBlur, index_dtype, triton

_KEY_LIMIT = 2**62
_MARGIN = 2  # unused quotients on each side, so that the name of a neighbor does not overflow into another coordinate
MAX_DEVIATIONS = 2e6  # from 0; float32 resolves an eighth of a standard deviation there


@dataclass(frozen=True)
class Lattice:
    """Points embedded in a lattice.

    Attributes:
        splat: From points to vertices.
        blur: Along the axes.
        slice: From vertices to points, with the barycentric weights of ``splat``.
        order: Maps the entries of ``splat`` to those of ``slice``, to fold a weight per point into either.
        scale: Factor of the blur.
    """

    points: int
    vertices: int
    splat: Gather
    blur: Blur
    slice: Gather
    order: Tensor
    scale: float

    def repeat(self, times: int) -> Lattice:
        """Return the lattice of ``times`` images with the same features, as those of a spatial kernel."""
        if times == 1:
            return self
        entries = self.order.numel()
        kind = index_dtype(times * entries)
        step = torch.arange(times, device=self.order.device, dtype=kind)[:, None]
        return Lattice(
            self.points * times,
            self.vertices * times,
            self.splat.repeat(times, self.points),
            self.blur.repeat(times, self.vertices),
            self.slice.repeat(times, self.vertices),
            (self.order.to(kind) + step * entries).reshape(-1),
            self.scale,
        )


@torch.no_grad()
def build_lattice(features: Tensor, dtype: torch.dtype = torch.float32) -> Lattice:
    """Embed features in a lattice.

    The geometry is computed in float32 and in the reference's order of operations, so that all engines embed a point in
    the same simplex. The images do not share vertices. Point ``b * N + n`` is row n of image b.

    Args:
        features: float32 (B, N, d), divided by the standard deviations.
        dtype: Of the weights.

    Raises:
        ValueError: Features are not finite, too far from 0, or so far apart that 62 bits cannot name all vertices.
    """
    if features.dim() != 3 or 0 in features.shape:
        raise ValueError(f"features have shape {tuple(features.shape)}; give (images, points, dimensions), none 0")
    images, points, dims = features.shape
    features = features.to(torch.float32).reshape(-1, dims)
    least, most = torch.stack(features.aminmax(dim=0)).tolist()
    if not all(map(math.isfinite, least + most)):
        raise ValueError("features are not finite; look for a theta of 0 or NaN in the image or the features")
    if max(map(abs, least + most)) > MAX_DEVIATIONS:
        raise ValueError(
            f"features lie from {min(least):g} to {max(most):g}, more than {MAX_DEVIATIONS:,.0f} standard deviations "
            "from 0; use a larger theta, or shift them"
        )
    corners, by_triton = dims + 1, triton(features.device) is not None
    if by_triton:
        from segbatch.crf import triton_lattice
    if by_triton and dims <= triton_lattice.MAX_DIMENSIONS:
        keys, strides, barycentric = _name_by_triton(features, images, np.array(least), np.array(most))
    else:
        base, rank, barycentric = _embed(features)
        keys, strides = _pack(base, rank, images)
    # Steps from the name of a vertex to the next one along an axis, for color 0 and for the others: +d on the axis and
    # -1 on all others. Color 0 borrows from every quotient.
    steps = [(along - sum(strides) + dims, along - 1) for along in (*strides, 0)]

    # One stable sort numbers the vertices, orders the splat, and allows binary search for neighbors.
    in_order, order = torch.sort(keys.reshape(-1), stable=True)
    kind = index_dtype(order.numel())
    starts = torch.zeros_like(in_order, dtype=torch.bool)
    torch.ne(in_order[1:], in_order[:-1], out=starts[1:])
    numbers = starts.cumsum(0, dtype=kind)
    vertices = int(numbers[-1]) + 1
    weights = barycentric.to(dtype)
    number = triton_lattice.number if by_triton else _number
    names, splat, vertex_of, order = number(in_order, order, numbers, weights, vertices)
    blur: Blur
    if by_triton:
        blur = TritonBlur(tuple(triton_lattice.neighbors(names, steps, index_dtype(vertices))))
    else:
        blur = MatrixBlur(tuple(_blur(names, corners, step, kind, dtype) for step in steps))
    rows = torch.arange(0, order.numel() + 1, corners, device=order.device, dtype=kind)
    return Lattice(
        images * points,
        vertices,
        Gather(*splat).in_pieces() if by_triton else Gather(*splat),
        blur,
        Gather(vertex_of, rows, weights.reshape(-1)),
        order,
        1.0 / (1.0 + 2.0**-dims),
    )


def _scales(dims: int) -> list[float]:
    """Return the factor of each feature before the rotation into the plane of the lattice."""
    # The blur has a standard deviation of one; rounded to float32 where the reference rounds.
    spread = float(np.float32(math.sqrt(2.0 / 3.0) * (dims + 1)))
    return [1.0 / math.sqrt((axis + 1.0) * axis) * spread for axis in range(1, dims + 1)]


def _embed(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return base (P, d) in units of d + 1, rank (P, d) and barycentric weights (P, d + 1) of features (P, d)."""
    points, dims = features.shape
    corners = dims + 1
    scales = _scales(dims)
    elevated = features.new_empty(corners, points)
    above = features.new_zeros(points)
    for axis in range(dims, 0, -1):
        scaled = features[:, axis - 1] * scales[axis - 1]
        elevated[axis] = above - axis * scaled
        above = above + scaled
    elevated[0] = above

    nearest = torch.round(elevated * (1.0 / corners))  # the closest vertex of color 0, not yet on the plane
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
    # One value per column and point: two scatters without a sum, so that the result does not depend on the order.
    weights.scatter_(1, place, offset)
    weights[:, 1:] -= torch.zeros_like(weights[:, 1:]).scatter_(1, place, offset)
    weights[:, 0] += 1.0 + weights[:, corners]
    return nearest[:dims].t().to(torch.int64), rank[:dims].t(), weights[:, :corners].contiguous()


def _pack(base: Tensor, rank: Tensor, images: int) -> tuple[Tensor, list[int]]:
    """Return names of the d + 1 vertices around each point, int64 (P, d + 1), and the stride of each coordinate.

    All coordinates of a vertex of color r are r modulo d + 1; a name consists of the quotients and r.
    """
    points, dims = base.shape
    corners = dims + 1
    low = base.amin(0)
    strides, step = _strides(low.tolist(), base.amax(0).tolist(), images)
    low -= _MARGIN
    stride = torch.tensor(strides, device=base.device)
    image = torch.arange(images, device=base.device).repeat_interleave(points // images)
    origin = ((base - low) * stride).sum(1) + image * step
    keys = origin[:, None] + torch.arange(corners, device=base.device)
    for color in range(1, corners):
        keys[:, color] -= ((rank > dims - color) * stride).sum(1)
    return keys, strides


def _name_by_triton(
    features: Tensor, images: int, least: np.ndarray, most: np.ndarray
) -> tuple[Tensor, list[int], Tensor]:
    """Do the work of ``_embed`` and ``_pack`` in one pass: names (P, d + 1), int32 if they fit, strides, weights."""
    from segbatch.crf import triton_lattice

    dims = features.shape[1]
    corners, scales = dims + 1, _scales(dims)
    least, most = least * scales, most * scales
    # Bounds of the quotients from those of the features: coordinate i is the sum of the later features minus i times
    # feature i.
    low, high = [], []
    for i in range(dims):
        low.append(math.floor((least[i:].sum() - i * most[i - 1]) / corners) - 2)
        high.append(math.ceil((most[i:].sum() - i * least[i - 1]) / corners) + 2)
    strides, step = _strides(low, high, images)
    origin = -sum((a - _MARGIN) * stride for a, stride in zip(low, strides, strict=True))
    kind = torch.int32 if images * step < 2**31 else torch.int64
    keys, weights = triton_lattice.embed(features.contiguous(), scales, strides, images, step, origin, kind)
    return keys, strides, weights


def _strides(low: Sequence[int], high: Sequence[int], images: int) -> tuple[list[int], int]:
    """Return the strides of the coordinates in a name, and that of the image, from the bounds of the quotients."""
    corners = len(low) + 1
    spans = [int(b - a) + 2 * _MARGIN for a, b in zip(low, high, strict=True)]
    if images * corners * math.prod(spans) >= _KEY_LIMIT:
        raise ValueError(
            f"the features span {spans} lattice cells in {images} image(s), more than 62 bits can name; "
            "use a larger theta (a kernel this narrow joins no two pixels)"
        )
    strides, step = [0] * len(spans), corners
    for axis in reversed(range(len(spans))):
        strides[axis], step = step, step * spans[axis]
    return strides, step


def _number(
    keys: Tensor, order: Tensor, numbers: Tensor, weights: Tensor, vertices: int
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Number the vertices of sorted entries.

    Args:
        keys: Sorted names of the entries.
        order: The order that sorts them.
        numbers: The number of each entry's vertex.
        weights: Barycentric weights (P, corners).

    Returns:
        Names of the vertices, the splat, the vertex of each entry, and ``order`` in the dtype of ``numbers``.
    """
    kind = numbers.dtype
    first = torch.searchsorted(numbers, torch.arange(vertices + 1, dtype=kind, device=numbers.device), out_int32=False)
    index = torch.div(order, weights.shape[1], rounding_mode="floor").to(kind)
    vertex_of = torch.empty_like(numbers)
    vertex_of[order] = numbers
    return keys[first[:-1]], (index, first.to(kind), weights.reshape(-1)[order]), vertex_of, order.to(kind)


def _blur(names: Tensor, corners: int, step: tuple[int, int], kind: torch.dtype, dtype: torch.dtype) -> Gather:
    """Return the blur along one axis, for sorted names of vertices."""
    vertices = names.numel()
    wanted = names + torch.where(names % corners == 0, *step)
    found = torch.searchsorted(names, wanted).clamp_(max=vertices - 1)
    below = (names[found] == wanted).nonzero().squeeze(1)  # vertices that have a next one along the axis
    above = found[below]  # the next one of each
    sizes = torch.ones(vertices, dtype=torch.int64, device=names.device)
    sizes[below] += 1
    sizes[above] += 1
    offsets = torch.zeros(vertices + 1, dtype=torch.int64, device=names.device)
    torch.cumsum(sizes, 0, out=offsets[1:])
    # A row is the vertex itself, its next one if any, its previous one if any.
    own, entries = offsets[:-1], 2 * below.numel() + vertices
    index = torch.empty(entries, dtype=kind, device=names.device)
    index[own] = torch.arange(vertices, dtype=kind, device=names.device)
    index[own[below] + 1] = above.to(kind)
    index[offsets[above + 1] - 1] = below.to(kind)
    weights = torch.full((entries,), 0.5, dtype=dtype, device=names.device)
    weights[own] = 1.0
    return Gather(index, offsets.to(kind), weights)
