"""Rank correlation of confidence and accuracy over images, and over bootstrap draws of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segbatch.evaluation.scores import ratio

MAX_IMAGES = 10_000
_REPLICATES = 64  # ranked at once, which bounds the memory


@dataclass
class RankedImages:
    """Confidence and accuracy of images, in order of the hashes of their names.

    Ranks need every image, unlike sums: of more than ``MAX_IMAGES``, those with the lowest hashes are kept. This is a
    random sample that depends neither on the order nor on the partition of the images, and is the same for two outputs.
    """

    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # (N,)
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))  # (N, 2)

    def add(self, hashes: Sequence[int] | np.ndarray, values: Sequence[tuple[float, float]] | np.ndarray) -> None:
        """Add images.

        Args:
            hashes: Of their names, (N,).
            values: Confidence and accuracy of each, (N, 2).
        """
        hashes = np.concatenate([self.hashes, np.asarray(hashes, np.uint64)])
        values = np.concatenate([self.values, np.asarray(values, np.float32).reshape(-1, 2)])
        order = np.lexsort((values[:, 1], values[:, 0], hashes))[:MAX_IMAGES]
        self.hashes, self.values = hashes[order], values[order]

    def correlation(self, draws: np.ndarray) -> np.ndarray:
        """Return Spearman's correlation (R,) if image n is drawn ``draws`` (R, N) times."""
        return spearman(self.values[:, 0], self.values[:, 1], draws)


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rank correlation of x and y (N,) under several weightings, float64 (R,).

    Value n occurs ``weights`` (R, N) times. Equal values have their mean rank. NaN where x or y is constant.
    """
    parts = [weights[i : i + _REPLICATES] for i in range(0, len(weights), _REPLICATES)]
    return np.concatenate([_correlation(_ranks(x, w), _ranks(y, w), w) for w in parts])


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks (R, N), with the mean rank for equal values, in each row of ``weights``."""
    order = np.argsort(values, kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
    sizes = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
    ranks = np.empty(weights.shape)
    ranks[:, order] = (sizes.cumsum(axis=1) - sizes / 2)[:, group]
    return ranks


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the rows of a and b (R, N)."""
    total = weights.sum(axis=1, keepdims=True)
    a = a - ratio((weights * a).sum(axis=1, keepdims=True), total)
    b = b - ratio((weights * b).sum(axis=1, keepdims=True), total)
    product, squares = (weights * a * b).sum(axis=1), (weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)
    return ratio(product, np.sqrt(squares))
