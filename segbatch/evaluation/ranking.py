"""Whether confidence ranks images as their accuracy does: Spearman's correlation, and of images drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segbatch.evaluation.scores import share

MAX_IMAGES = 10_000
_REPLICATES = 64  # whose ranks are held in memory at once


@dataclass
class RankedImages:
    """Confidence and accuracy of images by the hashes of their names, in order of these.

    Ranks, unlike sums, need every image: of more than ``MAX_IMAGES`` those of the lowest hashes are kept. That is a
    random sample, the same for every order and partition of the images, and for two outputs of one corpus.
    """

    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # (N,)
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))  # (N, 2)

    def add(self, hashes: Sequence[int] | np.ndarray, values: Sequence[tuple[float, float]] | np.ndarray) -> None:
        """``values``: confidence and accuracy of each image."""
        hashes = np.concatenate([self.hashes, np.asarray(hashes, np.uint64)])
        values = np.concatenate([self.values, np.asarray(values, np.float32).reshape(-1, 2)])
        order = np.lexsort((values[:, 1], values[:, 0], hashes))[:MAX_IMAGES]
        self.hashes, self.values = hashes[order], values[order]

    def correlation(self, draws: np.ndarray) -> np.ndarray:
        """Spearman's correlation of confidence and accuracy (R,), if image n is drawn ``draws`` (R, N) times."""
        return spearman(self.values[:, 0], self.values[:, 1], draws)


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank correlation of x and y (N,) float64 (R,), where value n occurs ``weights`` (R, N) times; equals share ranks.

    NaN where x or y is the same everywhere.
    """
    parts = [weights[i : i + _REPLICATES] for i in range(0, len(weights), _REPLICATES)]
    return np.concatenate([_correlation(_ranks(x, w), _ranks(y, w), w) for w in parts])


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks (R, N): the middle of the places that equal values take, in each row of ``weights``."""
    order = np.argsort(values, kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
    sizes = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
    ranks = np.empty(weights.shape)
    ranks[:, order] = (sizes.cumsum(axis=1) - sizes / 2)[:, group]
    return ranks


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the rows of a and b (R, N)."""
    total = weights.sum(axis=1, keepdims=True)
    a = a - share((weights * a).sum(axis=1, keepdims=True), total)
    b = b - share((weights * b).sum(axis=1, keepdims=True), total)
    product, squares = (weights * a * b).sum(axis=1), (weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)
    return share(product, np.sqrt(squares))
