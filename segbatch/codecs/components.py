"""Connected components of a mask."""

from __future__ import annotations

import numpy as np


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected regions of equal values; pixels that touch at a corner are connected.

    Works on horizontal runs: memory and time grow with the number of runs, not with the number of regions.

    Args:
        mask: (H, W), any integer type.

    Returns:
        The region of each pixel, int32 (H, W), in order of the regions' first pixels; and their areas, int64 (N,).
    """
    height, width = mask.shape
    if not mask.size:
        return np.zeros(mask.shape, np.int32), np.zeros(0, np.int64)
    flat = mask.ravel()
    begins = np.ones(mask.shape, bool)
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    starts = np.flatnonzero(begins)
    stops = np.append(starts[1:], flat.size)
    first, second = _touching(starts, stops, width)
    same = flat[starts[first]] == flat[starts[second]]
    roots = _joined(len(starts), first[same], second[same])
    _, region = np.unique(roots, return_inverse=True)
    lengths = stops - starts
    areas = np.bincount(region, lengths).astype(np.int64)
    return np.repeat(region.astype(np.int32), lengths).reshape(height, width), areas


def _touching(starts: np.ndarray, stops: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of runs of adjacent rows that touch, as positions of the upper and of the lower one."""
    next_row = (starts // width + 1) * width
    left = np.maximum(starts + width - 1, next_row)
    right = np.minimum(stops + width, next_row + width - 1)  # the last pixel that touches
    begin = np.searchsorted(stops, left, "right")
    end = np.searchsorted(starts, right, "right")
    counts = np.maximum(end - begin, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(begin, counts) + offsets


def _joined(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return for each node the smallest node that it is connected with by the edges ``first[i], second[i]``."""
    parent = np.arange(count)
    while True:
        a, b = parent[first], parent[second]
        if np.array_equal(a, b):
            return parent
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := parent[parent], parent):
            parent = shorter
