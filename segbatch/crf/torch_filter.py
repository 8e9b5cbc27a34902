"""The filters of a dense CRF's kernels in torch: lattice, normalization, and the adjoint for autograd."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

import torch
from torch import Tensor

from segbatch.crf.kernels import Kernel
from segbatch.crf.params import NORMALIZATIONS
from segbatch.crf.torch_lattice import Lattice, build_lattice
from segbatch.crf.torch_sparse import Gather

LABEL_BLOCK = 64  # labels filtered at once, which bounds the tables of vertices


class _Side:
    """Barycentric weights times one weight per point, for a splat or a slice; shared with the adjoint."""

    def __init__(self, lattice: Lattice, weights: Tensor, in_order: Tensor | None = None) -> None:
        self.lattice, self.weights, self._in_order = lattice, weights, in_order

    @property
    def slice(self) -> Gather:
        return replace(self.lattice.slice, weights=self.weights)

    @property
    def splat(self) -> Gather:
        if self._in_order is None:  # only the backward pass needs a slice's weights in this order
            self._in_order = self.weights[self.lattice.order]
        return replace(self.lattice.splat, weights=self._in_order)


class GaussianFilter:
    """The filter of one kernel, ``post * slice(blur(splat(pre * values)))``, for values (points, labels).

    ``pre`` and ``post`` are the normalization, folded into the weights of the lattice. With n the filtered ones,
    ``before`` and ``after`` divide by n on that side, ``symmetric`` by its square root on both (as pydensecrf), and
    ``none`` on neither. Differentiable in the values; the features are constants.
    """

    def __init__(self, lattice: Lattice, normalization: str) -> None:
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization is {normalization!r}; use one of {', '.join(NORMALIZATIONS)}")
        plain = lattice.slice.weights
        self._lattice, self._reverse = lattice, False
        self._pre = _Side(lattice, plain, lattice.splat.weights)
        self._post = _Side(lattice, plain * lattice.scale)
        if normalization == "none":
            return
        norm = self._apply(plain.new_ones(lattice.points, 1)) + 1e-20
        norm = norm.rsqrt() if normalization == "symmetric" else norm.reciprocal()
        each = plain.reshape(lattice.points, -1)
        if normalization != "after":
            self._pre = _Side(lattice, (each * norm).reshape(-1))
        if normalization != "before":
            self._post = _Side(lattice, (each * (norm * lattice.scale)).reshape(-1))

    @property
    def points(self) -> int:
        return self._lattice.points

    def repeat(self, times: int) -> GaussianFilter:
        """Return the filter of ``times`` images with the same features, as those of a spatial kernel."""
        if times == 1:
            return self
        other = object.__new__(GaussianFilter)
        other._lattice, other._reverse = self._lattice.repeat(times), self._reverse
        other._pre, other._post = (
            _Side(other._lattice, side.weights.repeat(times)) for side in (self._pre, self._post)
        )
        return other

    @property
    def transposed(self) -> GaussianFilter:
        """The adjoint: the sides are swapped, and the axes blurred in the opposite order."""
        other = object.__new__(GaussianFilter)
        other._lattice, other._reverse = self._lattice, not self._reverse
        other._pre, other._post = self._post, self._pre
        return other

    def __call__(self, values: Tensor) -> Tensor:
        lattice = self._lattice
        if values.dim() != 2 or values.shape[0] != lattice.points or values.shape[1] == 0:
            raise ValueError(f"values have shape {tuple(values.shape)}; this filter takes ({lattice.points}, labels)")
        if values.dtype != self._pre.weights.dtype:
            raise TypeError(f"values are {values.dtype}; this filter was built for {self._pre.weights.dtype}")
        result: Tensor = _Filter.apply(values, self)
        return result

    def to_slice(self, values: Tensor, coupling: float) -> tuple[Tensor, Tensor, Tensor, float]:
        """Splat and blur up to ``LABEL_BLOCK`` labels, without gradients, for ``triton_filter.add_slices``."""
        post = self._post.slice
        return post.index, post.weights, self._lattice.blur(self._pre.splat(values)), coupling

    def _apply(self, values: Tensor) -> Tensor:
        lattice = self._lattice
        splat, gather = self._pre.splat, self._post.slice
        blur = lattice.blur.adjoint() if self._reverse else lattice.blur
        labels = values.shape[1]
        if labels <= LABEL_BLOCK:
            return gather(blur(splat(values.contiguous())))
        out = torch.empty_like(values)
        for start in range(0, labels, LABEL_BLOCK):
            block = values[:, start : start + LABEL_BLOCK].contiguous()
            out[:, start : start + LABEL_BLOCK] = gather(blur(splat(block)))
        return out


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, gaussian: GaussianFilter) -> Tensor:
        return gaussian._apply(values.detach())

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
        ctx.gaussian = inputs[1]  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.gaussian.transposed(gradient), None  # type: ignore[attr-defined]


def build_filter(
    kernel: Kernel,
    images: Tensor | None,
    size: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> GaussianFilter:
    """Return the filter of a kernel. Those of spatial kernels are cached.

    Args:
        images: uint8 (B, H, W, 3); may be None unless the kernel needs them.
        size: (B, H, W).
    """
    batch, height, width = size
    if kernel.needs_image:
        if images is None:
            raise ValueError("images are None but a Bilateral kernel needs them; give uint8 (B, H, W, 3)")
        features = _bilateral(kernel, images)
        return GaussianFilter(build_lattice(features, dtype), kernel.normalization)
    if kernel.vectors is None:
        return _SPATIAL.get(kernel, size, device, dtype)
    return _shared(kernel, height, width, device, dtype).repeat(batch)


def _bilateral(kernel: Kernel, images: Tensor) -> Tensor:
    """Return the features of each image, (B, H * W, 5), on the device; equal to ``kernel.features``."""
    batch, height, width, _ = images.shape
    thetas = torch.tensor(kernel.thetas, dtype=torch.float32, device=images.device)
    features = torch.empty(batch, height, width, 5, device=images.device)
    features[..., 0] = torch.arange(width, dtype=torch.float32, device=images.device) / thetas[0]
    features[..., 1] = (torch.arange(height, dtype=torch.float32, device=images.device) / thetas[1])[:, None]
    torch.div(images, thetas[2:], out=features[..., 2:])
    return features.reshape(batch, -1, 5)


def _shared(kernel: Kernel, height: int, width: int, device: torch.device, dtype: torch.dtype) -> GaussianFilter:
    # Cached for training, too, which cannot use tensors of inference mode.
    with torch.inference_mode(False):
        features = torch.tensor(kernel.features(None, height, width).T[None], device=device)
        return GaussianFilter(build_lattice(features, dtype), kernel.normalization)


class _SpatialFilters:
    """A cache of filters of spatial kernels, whose lattices depend on the size and the thetas alone."""

    ENTRIES, PIXELS = 8, 2**22  # in total, about 70 bytes per pixel

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[object, ...], GaussianFilter] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, kernel: Kernel, size: tuple[int, int, int], device: torch.device, dtype: torch.dtype
    ) -> GaussianFilter:
        batch, height, width = size
        key = (kernel.thetas, kernel.normalization, size, device, dtype)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        if batch > 1:
            one = self.get(kernel, (1, height, width), device, dtype)
            with torch.inference_mode(False):  # cached for training, too, as in _shared
                made = one.repeat(batch)
        else:
            made = _shared(kernel, height, width, device, dtype)
        if made.points <= self.PIXELS:
            with self._lock:
                self._cache[key] = made
                while len(self._cache) > self.ENTRIES or sum(f.points for f in self._cache.values()) > self.PIXELS:
                    self._cache.popitem(last=False)
        return made


_SPATIAL = _SpatialFilters()
