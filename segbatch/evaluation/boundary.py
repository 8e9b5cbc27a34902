"""Accuracy near the boundaries of a label: distances for trimaps, and the boundary F1.

Labels are class ids (H, W); negative ids are ignored pixels.
"""

from __future__ import annotations

import math

import numpy as np


def boundary_distance(truth: np.ndarray, widest: int) -> np.ndarray:
    """Return the distance of each pixel to the nearest other class or ignored pixel, uint8 (H, W).

    The distance is the larger of the steps along y and x: ``boundary_distance(t, w) <= w`` is the band that a square of
    side 2w + 1 reaches. Where ignored pixels separate the classes, as in PASCAL VOC, it is their dilation without
    themselves: the trimap of DeepLab (Chen et al. 2015, sec. 5, after Kohli et al. 2009). The border of the image is no
    boundary.

    Args:
        truth: Class ids (H, W).
        widest: 1 to 254; pixels that are farther have ``widest + 1``.
    """
    near = np.zeros(truth.shape, bool)
    for a, b in _NEIGHBORS:
        differs = truth[a] != truth[b]
        near[a] |= differs
        near[b] |= differs
    distance = np.full(truth.shape, widest + 1, np.uint8)
    for _ in range(widest - 1):
        distance -= near
        near = _widened(near)
    distance -= near
    return distance


def boundary_f1(truth: np.ndarray, mask: np.ndarray, classes: int, tolerance: float | None = None) -> np.ndarray:
    """Return the F1 of each class's boundary, float64 (C,).

    Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?". A boundary pixel has a neighbor
    (up, down, left, right) of another class. Precision is the fraction of the mask's boundary pixels of a class with
    one of the label's within the tolerance, recall the converse. Ignored regions that are narrower than twice the
    tolerance are divided among the classes beside them, so that the rims that VOC draws around objects become
    boundaries. The other ignored pixels have no boundaries, in neither map.

    Args:
        truth: Class ids (H, W) of the label.
        mask: Class ids (H, W).
        classes: Number of classes.
        tolerance: Euclidean distance in pixels, by default 0.75 % of the image's diagonal, as in the paper.

    Returns:
        NaN for a class that has a boundary in neither map.
    """
    reach = 0.0075 * math.hypot(*truth.shape) if tolerance is None else tolerance
    filled = _fill(truth, math.ceil(reach))
    true_class, true_at = _boundary(filled)
    mask_class, mask_at = _boundary(np.where(filled >= 0, mask, -1))
    f1 = np.full(classes, np.nan)
    for c in np.union1d(true_class, mask_class):
        true, given = true_at[true_class == c], mask_at[mask_class == c]
        if not len(true) or not len(given):
            f1[c] = 0
            continue
        precision, recall = _within(given, true, reach).mean(), _within(true, given, reach).mean()
        f1[c] = 2 * precision * recall / (precision + recall) if precision + recall else 0
    return f1


_ALL, _LOW, _HIGH = slice(None), slice(None, -1), slice(1, None)
_CROSS = (((_LOW, _ALL), (_HIGH, _ALL)), ((_ALL, _LOW), (_ALL, _HIGH)))
_NEIGHBORS = (*_CROSS, ((_LOW, _LOW), (_HIGH, _HIGH)), ((_LOW, _HIGH), (_HIGH, _LOW)))


def _widened(values: np.ndarray) -> np.ndarray:
    """The maximum of each 3x3 square (of those pixels of it that are in the image)."""
    for low, high in _CROSS:
        wide = values.copy()
        np.maximum(wide[high], values[low], out=wide[high])
        np.maximum(wide[low], values[high], out=wide[low])
        values = wide
    return values


def _fill(truth: np.ndarray, depth: int) -> np.ndarray:
    """Give ignored pixels up to ``depth`` deep a class beside them, of several the highest id."""
    for _ in range(depth):
        ignored = truth < 0
        if not ignored.any():
            break
        truth = np.where(ignored, _widened(truth), truth)
    return truth


def _boundary(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class (n,) and position (n, 2) of pixels with a neighbor of another class, not ignored."""
    edge = np.zeros(ids.shape, bool)
    for a, b in _CROSS:
        differs = (ids[a] != ids[b]) & (ids[a] >= 0) & (ids[b] >= 0)
        edge[a] |= differs
        edge[b] |= differs
    return ids[edge], np.argwhere(edge)


def _within(points: np.ndarray, targets: np.ndarray, reach: float) -> np.ndarray:
    """Which of ``points`` (n, 2) have one of ``targets`` (m, 2) within ``reach`` pixels, bool (n,).

    A disc is 2 * reach + 1 rows, and prefix sums of the targets tell for each row whether it contains one: boundaries
    are thin, so this costs far less than dilating the image.
    """
    rows = math.floor(reach)
    origin = targets.min(axis=0) - 2 * rows
    height, width = targets.max(axis=0) - origin + 2 * rows + 1
    sums = np.zeros((height, width + 1), np.int32)
    y, x = (targets - origin).T
    sums[y, x + 1] = 1
    np.cumsum(sums, axis=1, out=sums)
    y, x = (points - origin).T
    near = np.flatnonzero((y >= rows) & (y < height - rows) & (x >= rows) & (x < width - rows))
    y, x = y[near], x[near]
    reached = np.zeros(len(points), bool)
    for row in range(-rows, rows + 1):
        half = math.isqrt(math.floor(reach * reach - row * row))
        reached[near] |= sums[y + row, x + half + 1] > sums[y + row, x - half]
    return reached
