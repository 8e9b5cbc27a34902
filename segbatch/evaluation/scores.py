"""Metrics of a confusion matrix (Long et al. 2015, "Fully Convolutional Networks", sec. 5).

``hits, true, predicted`` are pixel counts (..., C) of each class: in label and mask, in the label, in the mask. Leading
axes are independent cases. Without pixels a result is NaN; means omit NaN.
"""

from __future__ import annotations

import numpy as np


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return ``part / whole`` float64, NaN where ``whole`` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the values that are not NaN; NaN if there are none."""
    valid = ~np.isnan(values)
    return ratio(np.where(valid, values, 0).sum(axis=-1), valid.sum(axis=-1))


def accuracy(hits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the accuracy of each class, (..., C)."""
    return ratio(hits, true)


def iou(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class, (..., C); NaN for one in neither label nor mask."""
    return ratio(hits, true + predicted - hits)


def pixel_accuracy(hits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the fraction of the pixels that are correct, (...)."""
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def frequency_weighted_iou(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the mean IoU weighted by the pixels of each class in the label, (...)."""
    return ratio((true * np.nan_to_num(iou(hits, true, predicted))).sum(axis=-1), true.sum(axis=-1))
