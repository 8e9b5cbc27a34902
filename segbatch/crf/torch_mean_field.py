"""Mean field in torch: batched, on the CPU or a GPU, and differentiable; and the layer of CRF-as-RNN.

Values are stored as (images * pixels, labels), because a lattice gathers whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segbatch.crf.kernels import Bilateral, Gaussian, Kernel
from segbatch.crf.torch_filter import LABEL_BLOCK, GaussianFilter, build_filter
from segbatch.crf.torch_sparse import triton

Term = tuple[GaussianFilter, float | Tensor]


def mean_field(
    images: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Kernel],
    iterations: int,
    compats: Sequence[Tensor] | None = None,
) -> Tensor:
    """Infer the marginals of images of one size, on the device of ``unary``.

    Differentiable in ``unary`` and ``compats``. Source: Krähenbühl & Koltun 2011, algorithm 1, with Jacobi updates as
    in pydensecrf.

    Args:
        images: uint8 (B, H, W, 3); may be None if no kernel needs them.
        unary: Energies (B, K, H, W). A label has the marginal 0 where its energy is infinite.
        kernels: The pairwise kernels.
        iterations: Mean-field iterations.
        compats: Tensors, scalar, (K,) or (K, K), that replace the ``compat`` of the kernels, with the same signs.

    Returns:
        Marginals (B, K, H, W): float64 if ``unary`` is, or else float32.
    """
    batch, labels, height, width = _check(images, unary)
    dtype = torch.float64 if unary.dtype == torch.float64 else torch.float32
    given = [k.compat for k in kernels] if compats is None else list(compats)
    if len(given) != len(kernels):
        raise ValueError(f"compats has {len(given)} entries but there are {len(kernels)} kernels; give one per kernel")
    with torch.autocast(unary.device.type, enabled=False):
        terms: list[Term] = []
        for kernel, compat in zip(kernels, given, strict=True):
            gaussian = build_filter(kernel, images, (batch, height, width), unary.device, dtype)
            terms.append((gaussian, _coupling(compat, labels, unary.device, dtype)))
        potts = [(g, c) for g, c in terms if not isinstance(c, Tensor)]
        fits = 0 < len(potts) == len(terms) and labels <= LABEL_BLOCK and not _needs_grad(unary, terms)
        if fits and (launch := triton(unary.device)):
            return _by_triton(launch, unary.to(dtype), potts, iterations)
        scores = _scores(-_to_rows(unary.to(dtype)), terms, iterations)
        return _to_maps(_softmax(scores), (batch, height, width))


class MeanField(nn.Module):
    """The layer of CRF-as-RNN: mean field with trained label compatibilities (Zheng et al. 2015, section 4).

    ``Q = softmax(U)``, then T times ``m = Ws·spatial(Q) + Wb·bilateral(Q)`` and ``Q = softmax(U − C·m)``; both
    filters are divided by their response to ones. The parameters ``spatial``, ``bilateral`` and ``compatibility`` are
    the matrices Ws, Wb and C (C, C), initially 3·I, 5·I and −I: the Potts model, up to a constant per pixel. The
    backward pass stores one map of scores per iteration and recomputes the others.

    Args:
        num_classes: C.
        iterations: T in eval mode.
        train_iterations: T in training mode.
        theta_alpha: Standard deviation of the bilateral kernel in pixels.
        theta_beta: Standard deviation of the bilateral kernel in RGB levels.
        theta_gamma: Standard deviation of the spatial kernel in pixels.
        diagonal: Ws and Wb have one weight per label (C,), so that labels interact through C alone.
    """

    def __init__(
        self,
        num_classes: int,
        iterations: int = 10,
        train_iterations: int = 5,
        theta_alpha: float = 160.0,
        theta_beta: float = 3.0,
        theta_gamma: float = 3.0,
        *,
        diagonal: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_classes", num_classes, 1),
            ("iterations", iterations, 0),
            ("train_iterations", train_iterations, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; give a whole number of {least} or more")
        self.num_classes, self.iterations, self.train_iterations = num_classes, iterations, train_iterations
        self.kernels: tuple[Kernel, ...] = (
            Gaussian(theta_gamma, normalization="after"),
            Bilateral(theta_alpha, theta_beta, normalization="after"),
        )
        each = torch.ones(num_classes) if diagonal else torch.eye(num_classes)
        self.spatial, self.bilateral = nn.Parameter(3.0 * each), nn.Parameter(5.0 * each)
        self.compatibility = nn.Parameter(-torch.eye(num_classes))

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        """Return refined logits (B, C, H, W), whose softmax over C are the marginals.

        Args:
            images: uint8 (B, H, W, 3) RGB.
            logits: (B, C, H, W).

        Raises:
            ValueError: A shape does not fit.
        """
        batch, labels, height, width = _check(images, logits)
        if labels != self.num_classes:
            raise ValueError(f"logits have {labels} classes but this layer has {self.num_classes}")
        dtype = self.compatibility.dtype if self.compatibility.dtype == torch.float64 else torch.float32
        with torch.autocast(logits.device.type, enabled=False):
            terms: list[Term] = [
                (
                    build_filter(kernel, images, (batch, height, width), logits.device, dtype),
                    -coupling,
                )
                for kernel, coupling in zip(self.kernels, self.couplings(dtype), strict=True)
            ]
            iterations = self.train_iterations if self.training else self.iterations
            scores = _scores(_to_rows(logits.to(dtype)), terms, iterations)
            return _to_maps(scores, (batch, height, width))

    def couplings(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return C·Ws and C·Wb (C, C): the ``compat`` of the two ``kernels`` of an equivalent dense CRF."""
        compatibility = self.compatibility.to(dtype)
        spatial, bilateral = (
            compatibility * weights if weights.dim() == 1 else compatibility @ weights
            for weights in (self.spatial.to(dtype), self.bilateral.to(dtype))
        )
        return spatial, bilateral

    def extra_repr(self) -> str:
        return f"{self.num_classes}, iterations={self.iterations}, train_iterations={self.train_iterations}"


def _check(images: Tensor | None, scores: Tensor) -> tuple[int, int, int, int]:
    if scores.dim() != 4 or 0 in scores.shape or not scores.is_floating_point():
        raise ValueError(f"scores are {scores.dtype} {tuple(scores.shape)}; give floats (B, K, H, W), none 0")
    batch, labels, height, width = scores.shape
    if images is not None:
        if images.dtype != torch.uint8 or tuple(images.shape) != (batch, height, width, 3):
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape)}; for these scores give uint8 "
                f"{(batch, height, width, 3)}, channels last"
            )
        if images.device != scores.device:
            raise ValueError(f"images are on {images.device} but scores on {scores.device}; move one of them")
    return batch, labels, height, width


def _scores(logits: Tensor, terms: Sequence[Term], iterations: int) -> Tensor:
    """Return the scores (P, K) whose softmax are the marginals after ``iterations`` steps."""

    def step(scores: Tensor) -> Tensor:
        marginals = _softmax(scores)
        scores = logits
        for gaussian, coupling in terms:
            scores = _add(scores, gaussian(marginals), coupling)
        return scores

    needs_grad = _needs_grad(logits, terms)
    scores = logits
    for _ in range(iterations):
        if needs_grad:  # store the scores between the steps, and recompute each step in the backward pass
            scores = checkpoint(step, scores, use_reentrant=False, preserve_rng_state=False)
        else:
            scores = step(scores)
    return scores


def _needs_grad(scores: Tensor, terms: Sequence[Term]) -> bool:
    tensors = (t for t in (scores, *(coupling for _, coupling in terms)) if isinstance(t, Tensor))
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _by_triton(
    launch: ModuleType, unary: Tensor, terms: Sequence[tuple[GaussianFilter, float]], iterations: int
) -> Tensor:
    """Return marginals (B, K, H, W). The slices, sum and softmax of a step are one kernel."""
    logits, marginals = launch.start(unary.contiguous())
    for _ in range(iterations):
        slices = [gaussian.to_slice(marginals, coupling) for gaussian, coupling in terms]
        marginals = launch.add_slices(logits, slices, softmax=True)
    maps: Tensor = launch.finish(marginals, tuple(unary.shape))
    return maps


def _add(scores: Tensor, filtered: Tensor, coupling: float | Tensor) -> Tensor:
    if not isinstance(coupling, Tensor):
        return torch.add(scores, filtered, alpha=coupling)
    if coupling.dim() < 2:
        return torch.addcmul(scores, filtered, coupling)
    return torch.addmm(scores, filtered, coupling.t())


def _coupling(
    compat: float | np.ndarray | Tensor, labels: int, device: torch.device, dtype: torch.dtype
) -> float | Tensor:
    """Return the factor of the filtered marginals in the scores."""
    if not isinstance(compat, (np.ndarray, Tensor)):
        return float(compat)
    weights = torch.as_tensor(compat, device=device).to(dtype)
    if tuple(weights.shape) not in ((), (labels,), (labels, labels)):
        raise ValueError(
            f"compat has shape {tuple(weights.shape)} but there are {labels} labels; "
            f"give a number, ({labels},) or ({labels}, {labels})"
        )
    return weights if weights.dim() == 0 else -weights  # a number is a Potts weight, an array is an energy


def _softmax(scores: Tensor) -> Tensor:
    # torch's CPU softmax over a short contiguous axis is not vectorized, and 5 times slower than along the other axis.
    if scores.shape[1] < 16 and scores.device.type == "cpu":
        return scores.t().softmax(0).t()
    return scores.softmax(1)


def _to_rows(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _to_maps(rows: Tensor, size: tuple[int, int, int]) -> Tensor:
    return rows.reshape(*size, -1).permute(0, 3, 1, 2).contiguous()
