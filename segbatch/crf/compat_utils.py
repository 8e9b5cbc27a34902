"""The functions of ``pydensecrf.utils``, with the same names and results."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Number

import numpy as np


def unary_from_labels(labels: np.ndarray, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> np.ndarray:
    """Convert an annotation to energies.

    Args:
        labels: N integers, of any shape.
        n_labels: Number of labels.
        gt_prob: Probability of the annotated label, in (0, 1]; the others share the remainder equally. With 1, which
            pydensecrf refuses, their energy is +inf.
        zero_unsure: Label 0 means unknown, and labels 1 to ``n_labels`` are the rows 0 to ``n_labels - 1``. Otherwise
            label i is row i.

    Returns:
        Energies float32 (n_labels, N).

    Raises:
        ValueError: A label is out of range (pydensecrf may count it from the end).
    """
    if not 0 < gt_prob <= 1:
        raise ValueError(f"gt_prob is {gt_prob}; give a probability above 0, at most 1")
    if n_labels < 2:
        raise ValueError(f"n_labels is {n_labels}; give at least 2")
    labels = np.asarray(labels).ravel()
    rows = labels.astype(np.int64) - int(zero_unsure)
    if labels.size and (rows.min() < -int(zero_unsure) or rows.max() >= n_labels):
        low, high = int(labels.min()), int(labels.max())
        raise ValueError(
            f"labels range from {low} to {high}; for n_labels={n_labels} give 0 to {n_labels - 1 + zero_unsure}"
        )
    energies = np.full((n_labels, labels.size), _energy((1.0 - gt_prob) / (n_labels - 1)), np.float32)
    energies[rows, np.arange(labels.size)] = _energy(gt_prob)
    if zero_unsure:
        energies[:, labels == 0] = _energy(1.0 / n_labels)
    return energies


def unary_from_softmax(sm: np.ndarray, scale: float | None = None, clip: float | None = 1e-5) -> np.ndarray:
    """Convert probabilities (C, ...) to energies float32 (C, N), the negative logarithm.

    Args:
        sm: Probabilities.
        scale: In (0, 1]; their weight in a mixture with the uniform distribution.
        clip: Minimum to which they are clipped. With None, a probability of 0 has the energy +inf.
    """
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale is {scale}; give a number above 0, at most 1")
        sm = scale * sm + (1 - scale) * (np.ones(sm.shape) / sm.shape[0])
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    return np.ascontiguousarray(_energy(sm).reshape(sm.shape[0], -1), np.float32)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Return features float32 (D, N) of positions: the index along each axis of ``shape``, divided by ``sdims``."""
    return _positions(sdims, shape).reshape(len(shape), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: np.ndarray, chdim: int = -1
) -> np.ndarray:
    """Return features float32 (D + C, N) of positions and values.

    Args:
        sdims: Divisors of the indices.
        schan: Divisors of the channels.
        img: The values.
        chdim: Axis of the channels in ``img``; -1 if it has none.
    """
    channels = img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)
    channels = channels.astype(np.float32)
    if isinstance(schan, Number):
        channels /= schan
    else:
        for channel, deviation in zip(channels, schan, strict=False):  # type: ignore[arg-type]
            channel /= deviation
    features = np.concatenate([_positions(sdims, channels.shape[1:]), channels])
    return features.reshape(len(features), -1)


def compute_unary(labels: np.ndarray, M: int, GT_PROB: float = 0.5) -> np.ndarray:
    """Deprecated name of ``unary_from_labels``."""
    warnings.warn("compute_unary is deprecated, use unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: np.ndarray, GT_PROB: float = 1) -> np.ndarray:
    """Deprecated name of ``unary_from_softmax``, without clipping."""
    warnings.warn("softmax_to_unary is deprecated, use unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def _energy(probability: np.ndarray | float) -> np.ndarray:
    """Return the negative logarithm, +inf for 0, without NumPy's warning."""
    with np.errstate(divide="ignore"):
        return -np.log(probability)


def _positions(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    positions = np.array(np.meshgrid(*(range(n) for n in shape), indexing="ij"), dtype=np.float32)
    for position, deviation in zip(positions, sdims, strict=False):
        position /= deviation
    return positions
