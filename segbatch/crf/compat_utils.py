"""The functions of ``pydensecrf.utils``, by their names and with their results."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Number

import numpy as np


def unary_from_labels(labels: np.ndarray, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> np.ndarray:
    """An annotation as energies: integers of any shape, N of them -> float32 (n_labels, N).

    The annotated label has probability ``gt_prob``, the others share the rest: of 1, which is refused by
    pydensecrf, nothing is left, and their energy is +inf. With ``zero_unsure`` label 0 is
    "could be anything" and labels 1 to ``n_labels`` are the rows 0 to ``n_labels - 1``; without, label i is row i.
    Raises ``ValueError`` for other labels (pydensecrf may count them from the end).
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
    """Probabilities (C, ...) -> energies float32 (C, N), the negative logarithm.

    ``scale`` in (0, 1] mixes in a uniform distribution, ``clip`` is the lowest probability that is believed;
    with None a probability of 0 is the energy +inf.
    """
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale is {scale}; give a number above 0, at most 1")
        sm = scale * sm + (1 - scale) * (np.ones(sm.shape) / sm.shape[0])
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    return np.ascontiguousarray(_energy(sm).reshape(sm.shape[0], -1), np.float32)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Features float32 (D, N) of the places in an array of ``shape``: the index along each axis, over ``sdims``."""
    return _places(sdims, shape).reshape(len(shape), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: np.ndarray, chdim: int = -1
) -> np.ndarray:
    """Features float32 (D + C, N) of place and value: indices over ``sdims``, channels over ``schan``.

    ``chdim`` is the axis of the channels in ``img``; -1 says that it has none.
    """
    channels = img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)
    channels = channels.astype(np.float32)
    if isinstance(schan, Number):
        channels /= schan
    else:
        for channel, deviation in zip(channels, schan, strict=False):  # type: ignore[arg-type]
            channel /= deviation
    features = np.concatenate([_places(sdims, channels.shape[1:]), channels])
    return features.reshape(len(features), -1)


def compute_unary(labels: np.ndarray, M: int, GT_PROB: float = 0.5) -> np.ndarray:
    """Old name of ``unary_from_labels``."""
    warnings.warn("compute_unary is deprecated, use unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: np.ndarray, GT_PROB: float = 1) -> np.ndarray:
    """Old name of ``unary_from_softmax``, without clipping."""
    warnings.warn("softmax_to_unary is deprecated, use unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def _energy(probability: np.ndarray | float) -> np.ndarray:
    """The negative logarithm; +inf of 0, without NumPy's warning."""
    with np.errstate(divide="ignore"):
        return -np.log(probability)


def _places(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    places = np.array(np.meshgrid(*(range(n) for n in shape), indexing="ij"), dtype=np.float32)
    for place, deviation in zip(places, sdims, strict=False):
        place /= deviation
    return places
