"""The confusion matrix of a segmentation."""

from __future__ import annotations

import numpy as np

from segbatch.evaluation import scores
from segbatch.labels import IGNORE_INDEX


class Confusion:
    """Pixel counts int64 (C, C): true class i, predicted class j. Sums are exact, in any order."""

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.ignore_index = ignore_index

    def add(self, truth: np.ndarray, mask: np.ndarray) -> None:
        """Count two masks of class ids (H, W).

        Pixels that ``truth`` ignores, or whose id there is not a class, do not count.

        Raises:
            ValueError: The sizes differ, or ``mask`` contains an id that is not a class.
        """
        if truth.shape != mask.shape:
            raise ValueError(f"truth is {truth.shape}, mask is {mask.shape}; both must have the image's size")
        classes = len(self.counts)
        if mask.size and not 0 <= mask.min() <= mask.max() < classes:
            raise ValueError(f"mask holds ids {mask.min()} to {mask.max()}, but there are {classes} classes")
        known = (truth != self.ignore_index) & (truth >= 0) & (truth < classes)
        pairs = truth[known].astype(np.int64) * classes + mask[known]
        self.counts += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def __iadd__(self, other: Confusion) -> Confusion:
        self.counts += other.counts
        return self

    def margins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``hits, true, predicted`` of ``evaluation.scores``, int64 (C,) each."""
        return np.diag(self.counts), self.counts.sum(axis=1), self.counts.sum(axis=0)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, float64 (C,); NaN for a class in neither mask."""
        return scores.iou(*self.margins())

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur; NaN without pixels."""
        return float(scores.mean(self.iou))

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the pixels that are correct; NaN without pixels."""
        hits, true, _ = self.margins()
        return float(scores.pixel_accuracy(hits, true))
