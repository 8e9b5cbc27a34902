"""Bilinear upsampling of coarse scores to the size of the image."""

from __future__ import annotations

import numpy as np

from segbatch.records import Scores


def upsample(scores: Scores) -> np.ndarray:
    """Upsample scores (K, h, w) to float32 (K, height, width).

    Bilinear between the centers of cells, constant beyond the outermost ones.
    """
    return upsample_at(scores, np.arange(scores.height), np.arange(scores.width))


def upsample_at(scores: Scores, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return ``upsample(scores)[:, rows][:, :, columns]`` without the other pixels."""
    values = scores.values.astype(np.float32)
    return _along(_along(values, 1, rows, scores.stride), 2, columns, scores.stride)


def _along(values: np.ndarray, axis: int, pixels: np.ndarray, stride: int) -> np.ndarray:
    if stride == 1:
        return values.take(pixels, axis)
    at = (pixels.astype(np.float32) + 0.5) / np.float32(stride) - 0.5
    at = np.clip(at, 0, values.shape[axis] - 1)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = len(pixels)
    weight = (at - low).astype(np.float32).reshape(shape)
    below = values.take(low, axis)
    return below + weight * (values.take(high, axis) - below)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the first axis of (K, H, W), float32."""
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)
