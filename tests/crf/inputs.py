"""Inputs that the tests of all engines share, and the oracle over all pairs of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage import data

from segbatch.crf import Kernel

NORMALIZATIONS = ("none", "before", "after", "symmetric")


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """A crop of one of scikit-image's photographs, uint8 (height, width, 3)."""
    top, left = {"astronaut": (60, 150), "coffee": (90, 200)}[name]
    image = {"astronaut": data.astronaut, "coffee": data.coffee}[name]()
    top, left = min(top, image.shape[0] - height), min(left, image.shape[1] - width)
    return np.array(image[top : top + height, left : left + width])


def smooth_logits(labels: int, height: int, width: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    """Logits float32 (labels, height, width) as a network of stride 8 would give."""
    coarse = np.random.default_rng(seed).normal(size=(labels, height // 8 + 2, width // 8 + 2)) * scale
    rows, columns = (_between(n, cells) for n, cells in zip((height, width), coarse.shape[1:], strict=True))
    return (rows @ coarse @ columns.T).astype(np.float32)


def _between(size: int, cells: int) -> np.ndarray:
    """Bilinear weights (size, cells) of evenly spaced cells."""
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells)))


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Two noisy regions of different color, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    image = random.normal(90, 12, size=(height, width, 3))
    image[:, width // 2 :] += 70
    return np.clip(image, 0, 255).astype(np.uint8)


def exact_filter(features: np.ndarray, normalization: str) -> np.ndarray:
    """The dense matrix of exp(-|f_i - f_j|² / 2) over all pairs, normalized; features (D, N)."""
    gap = features[:, :, None] - features[:, None, :]
    kernel = np.exp(-0.5 * (gap.astype(np.float64) ** 2).sum(0))
    norm = kernel.sum(1)
    before = {"before": 1 / norm, "symmetric": norm**-0.5}.get(normalization, np.ones_like(norm))
    after = {"after": 1 / norm, "symmetric": norm**-0.5}.get(normalization, np.ones_like(norm))
    return after[:, None] * kernel * before[None, :]


def exact_mean_field(image: np.ndarray, logits: np.ndarray, kernels: Sequence[Kernel], iterations: int) -> np.ndarray:
    """Marginals float64 (C, H, W) by mean field over all pairs of pixels, each with itself too."""
    labels, height, width = logits.shape
    flat = logits.reshape(labels, -1).T.astype(np.float64)
    matrices = [exact_filter(k.features(image, height, width), k.normalization) for k in kernels]
    scores = flat
    for _ in range(iterations):
        q = np.exp(scores - scores.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        scores = flat + sum(k.compat * (m @ q) for k, m in zip(kernels, matrices, strict=True))
    q = np.exp(scores - scores.max(1, keepdims=True))
    return (q / q.sum(1, keepdims=True)).T.reshape(labels, height, width)
