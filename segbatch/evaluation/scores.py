"""What Long et al. (FCN, CVPR 2015, sec. 5) read off a confusion matrix, from its diagonal and its two margins.

Everywhere ``hits, true, predicted`` are counts (..., C): pixels of each class that have it in both, in the label, in
the mask. Leading axes are as many cases at once. What has no pixels is NaN, and means leave NaN out.
"""

from __future__ import annotations

import numpy as np


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole`` float64, NaN where ``whole`` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN if all is."""
    there = ~np.isnan(values)
    return share(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def accuracy(hits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Share of each class's pixels that have it in the mask, (..., C)."""
    return share(hits, true)


def iou(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, (..., C); NaN for a class that neither label nor mask holds."""
    return share(hits, true + predicted - hits)


def pixel_accuracy(hits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Share of the pixels that have their class, (...)."""
    return share(hits.sum(axis=-1), true.sum(axis=-1))


def frequency_weighted_iou(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean of the IoUs weighted by the pixels of each class in the label, (...)."""
    return share((true * np.nan_to_num(iou(hits, true, predicted))).sum(axis=-1), true.sum(axis=-1))
