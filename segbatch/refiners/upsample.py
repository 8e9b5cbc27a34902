"""Coarse scores to full resolution: bilinear, on the grid that ``Scores`` describes."""

from __future__ import annotations

import numpy as np

from segbatch.records import Scores


def upsample(scores: Scores) -> np.ndarray:
    """Scores (K, h, w) -> float32 (K, height, width): bilinear between cell centers, constant beyond the outermost."""
    values = scores.values.astype(np.float32)
    rows = _along(values, 1, scores.height, scores.stride)
    return _along(rows, 2, scores.width, scores.stride)


def _along(values: np.ndarray, axis: int, size: int, stride: int) -> np.ndarray:
    if stride == 1:
        return values
    at = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(stride) - 0.5
    at = np.clip(at, 0, values.shape[axis] - 1)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = size
    weight = (at - low).astype(np.float32).reshape(shape)
    below = values.take(low, axis)
    return below + weight * (values.take(high, axis) - below)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the first axis, float32 (K, H, W)."""
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)
