"""Which images to label next, from the classes of their masks and the confidence of each class.

Each strategy yields images in its order. All are deterministic: ties are decided by the order of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_FULL_PRESENCE = 0.01  # fraction of an image from which on a class counts as fully present


@dataclass(frozen=True)
class Candidates:
    """What the strategies know of the images.

    Attributes:
        names: Of the classes.
        shares: Share of each class of all pixels, float64 (C,).
        fractions: Fraction of each image that is each class, float32 (N, C).
        confidences: Mean confidence of these pixels, float32 (N, C); 0 where the class is not in the image.
        background: Class that is the background, None if no class is.
        disagreement: 1 - mean IoU with another output, float64 (N,), NaN where it has no mask of the image.
    """

    names: tuple[str, ...]
    shares: np.ndarray
    fractions: np.ndarray
    confidences: np.ndarray
    background: int | None = None
    disagreement: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.fractions)

    def foreground(self) -> np.ndarray:
        """Return a copy of the fractions, 0 for the background."""
        foreground = self.fractions.copy()
        if self.background is not None:
            foreground[:, self.background] = 0
        return foreground


@dataclass(frozen=True)
class Choice:
    """One chosen image: its position among the candidates, its score, and why it was chosen."""

    position: int
    score: float
    reason: str


# Args: the images; those that may be chosen, bool (N,), of which the strategy clears each that it yields and the caller
# any others in between; the positions chosen before.
Strategy = Callable[[Candidates, np.ndarray, Sequence[int]], Iterator[Choice]]


def least_confident(candidates: Candidates, available: np.ndarray, _: Sequence[int] = ()) -> Iterator[Choice]:
    """Yield images by the pixel-weighted mean confidence of their classes without background, lowest first.

    Images of background alone are not yielded. For the arguments see ``Strategy``.
    """
    pixels = candidates.foreground()
    total = pixels.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = (pixels * candidates.confidences).sum(axis=1) / total
    for i in np.argsort(scores, kind="stable").tolist():  # NaN last
        if available[i] and total[i]:
            present = np.flatnonzero(pixels[i])
            lowest = present[np.argmin(candidates.confidences[i, present])]
            available[i] = False
            yield Choice(
                i,
                float(scores[i]),
                f"confidence {scores[i]:.3f}; {candidates.names[lowest]} {candidates.confidences[i, lowest]:.3f} "
                f"on {candidates.fractions[i, lowest]:.1%} of the image",
            )


def rare_classes(candidates: Candidates, available: np.ndarray, before: Sequence[int] = ()) -> Iterator[Choice]:
    """Yield images whose classes are rare, in the corpus and among those chosen before, greedily.

    The gain of an image is the sum over its classes of weight x presence / (1 + presences chosen before). The weight is
    1 / log(1.02 + share of all pixels) (Paszke et al. 2016, "ENet", sec. 5.2), the presence grows with the fraction of
    the image up to 1 at 1 %. For the arguments see ``Strategy``.
    """
    weights = 1 / np.log(1.02 + candidates.shares)
    presence = np.ascontiguousarray(np.minimum(candidates.fractions / _FULL_PRESENCE, 1).T)  # (C, N)
    chosen = presence[:, list(before)].sum(axis=1, dtype=np.float64)
    gains = (weights / (1 + chosen)) @ presence
    while available.any():
        i = int(np.argmax(np.where(available, gains, -1)))
        values = weights / (1 + chosen)
        best = int(np.argmax(presence[:, i] * values))
        choice = Choice(
            i,
            float(gains[i]),
            f"{candidates.names[best]}: {candidates.fractions[i, best]:.1%} of this image, "
            f"{candidates.shares[best]:.2%} of all pixels, in {chosen[best]:.0f} images chosen before",
        )
        chosen += presence[:, i]
        change = weights / (1 + chosen) - values
        for c in np.flatnonzero(change):  # the classes of this image alone: a quarter of the time of all classes
            gains += change[c] * presence[c]
        available[i] = False
        yield choice


def disagreeing(candidates: Candidates, available: np.ndarray, _: Sequence[int] = ()) -> Iterator[Choice]:
    """Yield images by 1 - mean IoU with another output, highest first; those that it lacks are not yielded.

    For the arguments see ``Strategy``.
    """
    assert candidates.disagreement is not None
    for i in np.argsort(-candidates.disagreement, kind="stable").tolist():  # NaN last
        if available[i] and not np.isnan(candidates.disagreement[i]):
            available[i] = False
            score = float(candidates.disagreement[i])
            yield Choice(i, score, f"mean IoU {1 - score:.3f} of the two outputs")


def diverse(candidates: Candidates, available: np.ndarray, before: Sequence[int] = ()) -> Iterator[Choice]:
    """Yield images that differ from all chosen before in the fractions of their classes, by k-center greedy.

    Each has the largest distance to the nearest of those (Sener and Savarese 2018, "Active Learning for Convolutional
    Neural Networks: A Core-Set Approach", alg. 1). For the arguments see ``Strategy``.
    """
    points = candidates.fractions
    squares = np.einsum("nc,nc->n", points, points)
    nearest = np.full(len(points), np.inf, np.float32)

    def choose(i: int) -> None:
        np.minimum(nearest, np.maximum(squares + squares[i] - 2 * (points @ points[i]), 0), out=nearest)

    for i in before:
        choose(i)
    while available.any():
        i = int(np.argmax(np.where(available, nearest, -1)))
        distance = float(np.sqrt(nearest[i]))
        largest = [c for c in np.argsort(-points[i], kind="stable")[:3] if points[i, c] >= 0.005]
        content = ", ".join(f"{candidates.names[c]} {points[i, c]:.0%}" for c in largest)
        is_first = np.isinf(distance)
        reason = "the first" if is_first else f"distance {distance:.3f} to the nearest"
        choose(i)
        available[i] = False
        yield Choice(i, 0.0 if is_first else distance, f"{content}; {reason}")


STRATEGIES: dict[str, Strategy] = {
    "least-confident": least_confident,
    "rare-class": rare_classes,
    "disagreement": disagreeing,
    "diverse": diverse,
}
