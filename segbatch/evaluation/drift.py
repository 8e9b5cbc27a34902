"""Drift: how far the content of one night is from that of earlier nights.

The population stability index is the symmetrized Kullback-Leibler divergence, sum (p - q) ln(p / q) (Jeffreys 1946;
Siddiqi 2006): it is unbounded, and sensitive to rare classes that become more frequent. The Jensen-Shannon divergence
(Lin 1991), here in bits, is between 0 and 1, and sensitive to mass that moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.config.nightly import DriftSpec
from segbatch.output.totals import CONFIDENCE_UNIT, Totals

# Most images have a confidence of 0.6 to 1, and images of one scene differ by hundredths: bins are finer near 1.
CONFIDENCE_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
_MAX_MOVED = 3


@dataclass
class Content:
    """Sums over the images of some nights, and a histogram of image confidence, int64 (11,)."""

    totals: Totals
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(len(CONFIDENCE_EDGES) - 1, np.int64))

    @property
    def images(self) -> int:
        return self.totals.records - self.totals.failed

    @property
    def error_share(self) -> float:
        return self.totals.failed / self.totals.records if self.totals.records else 0.0

    def add(self, other: Content) -> None:
        self.totals.add(other.totals)
        self.confidence = self.confidence + other.confidence


@dataclass(frozen=True)
class DriftFinding:
    """One comparison.

    Attributes:
        psi: Population stability index.
        js: Jensen-Shannon divergence in bits.
        limit_psi: Threshold, including what chance may add.
        limit_js: Threshold, including what chance may add.
        detail: What changed most.
    """

    kind: str
    psi: float
    js: float
    limit_psi: float
    limit_js: float
    detail: str

    @property
    def alert(self) -> bool:
        return self.psi > self.limit_psi or self.js > self.limit_js

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in vars(self).items()} | {"alert": self.alert}


def histogram(confidences: np.ndarray) -> np.ndarray:
    """Return the counts int64 (11,) of image confidences (N,) in the bins of ``CONFIDENCE_EDGES``."""
    return np.histogram(np.clip(confidences, 0, 1), CONFIDENCE_EDGES)[0].astype(np.int64)


def psi(p: np.ndarray, q: np.ndarray) -> float:
    """Return the population stability index of two distributions (C,) without zeros."""
    return float(np.sum((p - q) * np.log(p / q)))


def js(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two distributions (C,) without zeros, in bits."""
    m = (p + q) / 2
    return float(np.sum(p * np.log2(p / m) + q * np.log2(q / m)) / 2)


def measure_drift(tonight: Content, earlier: Content, names: Sequence[str], spec: DriftSpec) -> list[DriftFinding]:
    """Compare fractions of pixels, images that contain each class, and confidence.

    Returns nothing if there are fewer images than ``spec.min_images``.
    """
    n, m = tonight.images, earlier.images
    if min(n, m) < spec.min_images:
        return []
    return [
        _shares(tonight, earlier, names, spec),
        _presence(tonight, earlier, names, spec),
        _confidence(tonight, earlier, spec),
    ]


def _shares(tonight: Content, earlier: Content, names: Sequence[str], spec: DriftSpec) -> DriftFinding:
    """Pixels of an image are not independent draws: an image counts as one draw, its pixels as fractions."""
    n, m = tonight.images, earlier.images
    raw = [np.array(c.totals.pixels, np.float64) / max(1, sum(c.totals.pixels)) for c in (tonight, earlier)]
    p, q = (_smoothed(share * size, size) for share, size in zip(raw, (n, m), strict=True))
    return _finding("share of pixels", p, q, n, m, spec, _moved(raw[0], raw[1], names, (p - q) * np.log(p / q)))


def _presence(tonight: Content, earlier: Content, names: Sequence[str], spec: DriftSpec) -> DriftFinding:
    """Contained or not are two cells for each class; the class with the largest index is reported."""
    n, m = tonight.images, earlier.images
    p = (np.array(tonight.totals.images) + 0.5) / (n + 1)
    q = (np.array(earlier.totals.images) + 0.5) / (m + 1)
    cells = [(np.array([a, 1 - a]), np.array([b, 1 - b])) for a, b in zip(p, q, strict=True)]
    each = np.array([psi(*pair) for pair in cells])
    worst = int(each.argmax())
    raw = np.array(tonight.totals.images) / n, np.array(earlier.totals.images) / m
    # The largest of C chi-squares of one degree of freedom is about 2 ln C.
    degrees = 1 + 2 * math.log(len(names))
    return _finding("images containing", *cells[worst], n, m, spec, _moved(*raw, names, each), degrees)


def _confidence(tonight: Content, earlier: Content, spec: DriftSpec) -> DriftFinding:
    n, m = int(tonight.confidence.sum()), int(earlier.confidence.sum())
    p, q = _smoothed(tonight.confidence, n), _smoothed(earlier.confidence, m)
    means = (_mean_confidence(c.totals) for c in (earlier, tonight))
    return _finding("confidence", p, q, n, m, spec, "mean {:.3f} → {:.3f}".format(*means))


def _mean_confidence(totals: Totals) -> float:
    return sum(totals.confidence) / CONFIDENCE_UNIT / max(1, sum(totals.pixels))


def _smoothed(counts: np.ndarray, total: float) -> np.ndarray:
    """Add half a count to each cell (Jeffreys' prior): no zeros, and no infinite index by one image."""
    return (counts + 0.5) / (total + 0.5 * len(counts))


def _finding(
    kind: str,
    p: np.ndarray,
    q: np.ndarray,
    n: int,
    m: int,
    spec: DriftSpec,
    detail: str,
    degrees: float | None = None,
) -> DriftFinding:
    """Compare with thresholds that include chance.

    Without drift, the index of samples of n and m is about a chi-square times (1/n + 1/m); twice its mean is added to
    the threshold. For small differences the Jensen-Shannon divergence is an eighth of it, in nats.
    """
    chance = 2 * (len(p) - 1 if degrees is None else degrees) * (1 / max(1, n) + 1 / max(1, m))
    return DriftFinding(kind, psi(p, q), js(p, q), spec.psi + chance, spec.js + chance / 8 / math.log(2), detail)


def _moved(p: np.ndarray, q: np.ndarray, names: Sequence[str], weight: np.ndarray) -> str:
    """``bright 12.1 % → 55.3 %``: the classes that changed most, earlier and tonight."""
    most = [int(c) for c in np.argsort(-weight, kind="stable")[:_MAX_MOVED] if p[c] != q[c]]
    return ", ".join(f"{names[c]} {q[c]:.1%} → {p[c]:.1%}" for c in most)
