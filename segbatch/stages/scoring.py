"""The definition of the scores that are kept, and of the unrefined mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from segbatch.crf.params import default_prune
from segbatch.errors import RecordFailure
from segbatch.records import Scores
from segbatch.refiners.none import NoRefiner
from segbatch.refiners.upsample import upsample_at

# Part of the fingerprint. Raise it when a change here gives other rows for the same input.
ROWS_VERSION = 5


def coarse_scores(logits: np.ndarray, height: int, width: int, stride: int, prune: float) -> Scores:
    """Return the log-probabilities of the candidate classes of an image: those that can be the arg-max at a pixel.

    Kept are classes whose probability reaches ``prune`` in some cell, and classes that can have the highest
    score between cells: all but those whose scores lie, in every 2x2 neighborhood, below the lowest score of another
    class. The softmax subtracts the same constant from all classes of a cell, which changes neither interpolation nor
    arg-max nor a later softmax.

    Args:
        logits: float32 (C, h, w).
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        stride: Pixels per cell.
        prune: Probability in [0, 0.5); 0 keeps all classes.

    Raises:
        RecordFailure: A logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise RecordFailure(
            "segment", "NonFiniteScores", "the network's scores hold NaN or infinity; try precision: fp32"
        )
    top = logits.max(axis=0)
    logp = logits - (top + np.log(np.exp(logits - top).sum(axis=0)))
    keep = np.ones(len(logp), bool)
    if prune > 0:
        keep = _can_win(logp) | (logp.max(axis=(1, 2)) >= np.log(prune))
    lowest = np.finfo(np.float16).min
    values = np.maximum(logp[keep], lowest).astype(np.float16)
    return Scores(values, np.flatnonzero(keep).astype(np.int16), height, width, stride)


def unrefined_mask(logits: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
    """Return the mask of ``run --refiner none``.

    Args:
        logits: float32 (C, h, w).
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        stride: Pixels per cell.

    Returns:
        Class ids, int16 (height, width).

    Raises:
        RecordFailure: A logit is not finite.
    """
    scores = coarse_scores(logits, height, width, stride, default_prune(len(logits)))
    return NoRefiner().refine(None, scores)[0]


def unrefined_pixels(scores: Scores, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the class ids int16 of some rows and columns of the mask without refinement; the others cost nothing."""
    values = scores.values.astype(np.float32)
    can_win = _can_win(values)  # a third of the classes, and so of the time
    upsampled = upsample_at(replace(scores, values=values[can_win]), rows, columns)
    return np.asarray(scores.class_ids[can_win][upsampled.argmax(axis=0)])


def _can_win(values: np.ndarray) -> np.ndarray:
    """Which classes of scores (C, h, w) can have the highest one at a pixel, at or between the cells."""
    bound = _neighborhood(np.minimum, values).max(axis=0)
    return np.asarray((_neighborhood(np.maximum, values) >= bound).any(axis=(1, 2)))


def _neighborhood(reduce: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
    """Apply ``reduce`` to every 2x2 neighborhood of (C, h, w). A side of one cell is not reduced."""
    if x.shape[1] > 1:
        x = reduce(x[:, :-1], x[:, 1:])
    if x.shape[2] > 1:
        x = reduce(x[:, :, :-1], x[:, :, 1:])
    return x
