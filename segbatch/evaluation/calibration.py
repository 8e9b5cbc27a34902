"""How far stated confidence is from accuracy, in bins of confidence.

Confidence is calibrated if of all pixels with confidence c a share c is right (Guo et al. 2017, "On Calibration of
Modern Neural Networks", section 2). Sums in bins are (..., 3, BINS): pixels, those of them that are right, and their
confidence, added up; leading axes are as many cases at once. What has no pixels is NaN.
"""

from __future__ import annotations

import numpy as np

from segbatch.evaluation.scores import share

BINS = 15


def binned(confidence: np.ndarray, right: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
    """Sums float64 (3, BINS), in bins of equal width, of pixels or of groups of ``pixels`` with one confidence each.

    ``confidence`` (N,) lies between 0 and 1; ``right`` (N,) counts the pixels of each that have their label.
    """
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    pixels = np.ones(len(confidence)) if pixels is None else pixels
    weights = (pixels, right, confidence * pixels)
    return np.stack([np.bincount(place, weights=w, minlength=BINS) for w in weights])


def region_sums(mask: np.ndarray, confidence: np.ndarray, right: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Sums in bins of the regions of an image, float64 (3, BINS): all pixels of a class in its mask are one region.

    ``mask`` (H, W) are class ids, ``confidence`` (C,) the mean confidence of the pixels of each class; ``right`` and
    ``known`` (H, W) say which pixels have their label, and which have one.
    """
    pixels = np.bincount(mask[known], minlength=len(confidence))
    hits = np.bincount(mask[known & right], minlength=len(confidence))
    there = pixels > 0
    return binned(confidence[there], hits[there], pixels[there])


def mean_confidence(sums: np.ndarray) -> np.ndarray:
    """Mean confidence of the pixels, (...)."""
    return share(sums[..., 2, :].sum(axis=-1), sums[..., 0, :].sum(axis=-1))


def confidence_gap(sums: np.ndarray) -> np.ndarray:
    """|mean confidence - share of right pixels|, (...)."""
    return share(np.abs((sums[..., 2, :] - sums[..., 1, :]).sum(axis=-1)), sums[..., 0, :].sum(axis=-1))


def expected_calibration_error(sums: np.ndarray) -> np.ndarray:
    """The same gap in each bin, weighted by its pixels, (...): equation 3 of Guo et al. (Naeini et al. 2015)."""
    return share(np.abs(sums[..., 2, :] - sums[..., 1, :]).sum(axis=-1), sums[..., 0, :].sum(axis=-1))


def reliability(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reliability diagram: of each bin its share of all pixels, mean confidence and accuracy, (..., BINS) each."""
    pixels, right, confidence = (sums[..., i, :] for i in range(3))
    return share(pixels, pixels.sum(axis=-1, keepdims=True)), share(confidence, pixels), share(right, pixels)
