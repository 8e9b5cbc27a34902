"""The scores of a network that are kept, and its own mask: the only definition of either."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segbatch.crf.params import default_prune
from segbatch.errors import RecordFailure
from segbatch.records import Scores
from segbatch.refiners.none import NoRefiner

# Raise it when the same input would give other rows: it is part of the fingerprint.
ROWS_VERSION = 5


def coarse_scores(logits: np.ndarray, height: int, width: int, stride: int, prune: float) -> Scores:
    """Log-probabilities float16 of the classes of ``logits`` (C, h, w) that can win at some pixel of the image.

    Kept are classes whose probability reaches ``prune`` in some cell, and those that can have the highest
    score between cells: in no 2x2 neighborhood does another class's lowest score exceed all of theirs.
    Taking a constant from all classes of a cell leaves interpolation, arg-max and softmax as they were.
    Raises ``RecordFailure`` for scores that are not finite.
    """
    if not np.isfinite(logits).all():
        raise RecordFailure(
            "segment", "NonFiniteScores", "the network's scores hold NaN or infinity; try precision: fp32"
        )
    top = logits.max(axis=0)
    logp = logits - (top + np.log(np.exp(logits - top).sum(axis=0)))
    keep = np.ones(len(logp), bool)
    if prune > 0:
        surest = _neighborhood(np.minimum, logp).max(axis=0)
        can_win = (_neighborhood(np.maximum, logp) >= surest).any(axis=(1, 2))
        keep = can_win | (logp.max(axis=(1, 2)) >= np.log(prune))
    lowest = np.finfo(np.float16).min
    values = np.maximum(logp[keep], lowest).astype(np.float16)
    return Scores(values, np.flatnonzero(keep).astype(np.int16), height, width, stride)


def unrefined_mask(logits: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
    """The network's own mask, as of ``run --refiner none``: class ids int16 (height, width), of logits (C, h, w).

    Raises ``RecordFailure`` for scores that are not finite.
    """
    scores = coarse_scores(logits, height, width, stride, default_prune(len(logits)))
    return NoRefiner().refine(None, scores)[0]


def _neighborhood(reduce: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
    """``reduce`` over every 2x2 neighborhood of (C, h, w); a side of one cell stays as it is."""
    if x.shape[1] > 1:
        x = reduce(x[:, :-1], x[:, 1:])
    if x.shape[2] > 1:
        x = reduce(x[:, :, :-1], x[:, :, 1:])
    return x
