"""Calibration of confidence: how far it is from accuracy, in bins of confidence.

Confidence is calibrated if a fraction c of all pixels with confidence c is correct (Guo et al. 2017, "On Calibration of
Modern Neural Networks", sec. 2). Sums in bins are (..., 3, BINS): pixels, correct pixels, and the sum of their
confidence; leading axes are independent cases. Without pixels, a result is NaN.
"""

from __future__ import annotations

import numpy as np

from segbatch.evaluation.scores import ratio

BINS = 15


def binned(confidence: np.ndarray, right: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
    """Return the sums float64 (3, BINS), in bins of equal width, of pixels or of groups of pixels.

    Args:
        confidence: Of each pixel or group (N,), from 0 to 1.
        right: Correct pixels of each (N,).
        pixels: Pixels of each group (N,); by default 1.
    """
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    pixels = np.ones(len(confidence)) if pixels is None else pixels
    weights = (pixels, right, confidence * pixels)
    return np.stack([np.bincount(place, weights=w, minlength=BINS) for w in weights])


def region_sums(mask: np.ndarray, confidence: np.ndarray, right: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the sums in bins of the regions of an image, float64 (3, BINS).

    A region is all pixels of a class in the mask.

    Args:
        mask: Class ids (H, W).
        confidence: Mean confidence of the pixels of each class, (C,).
        right: Which pixels are correct, (H, W).
        known: Which pixels are not ignored, (H, W).
    """
    pixels = np.bincount(mask[known], minlength=len(confidence))
    hits = np.bincount(mask[known & right], minlength=len(confidence))
    present = pixels > 0
    return binned(confidence[present], hits[present], pixels[present])


def mean_confidence(sums: np.ndarray) -> np.ndarray:
    """Return the mean confidence of the pixels, (...)."""
    return ratio(sums[..., 2, :].sum(axis=-1), sums[..., 0, :].sum(axis=-1))


def confidence_gap(sums: np.ndarray) -> np.ndarray:
    """Return the absolute difference between the mean confidence and the accuracy of the pixels, (...)."""
    return ratio(np.abs((sums[..., 2, :] - sums[..., 1, :]).sum(axis=-1)), sums[..., 0, :].sum(axis=-1))


def expected_calibration_error(sums: np.ndarray) -> np.ndarray:
    """Return the mean over bins of |confidence - accuracy|, weighted by their pixels, (...).

    Guo et al. 2017, eq. 3 (Naeini et al. 2015).
    """
    return ratio(np.abs(sums[..., 2, :] - sums[..., 1, :]).sum(axis=-1), sums[..., 0, :].sum(axis=-1))


def reliability(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reliability diagram, as three arrays (..., BINS).

    These are the fraction of all pixels, the mean confidence and the accuracy of each bin.
    """
    pixels, right, confidence = (sums[..., i, :] for i in range(3))
    return ratio(pixels, pixels.sum(axis=-1, keepdims=True)), ratio(confidence, pixels), ratio(right, pixels)
