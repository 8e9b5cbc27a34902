"""Sums over images from which all metrics follow, as counted and for each bootstrap replicate.

A replicate weights each image by a draw from Poisson(1), which approximates drawing images with replacement (Hanley &
MacGibbon 2006) and needs neither the number of images nor their counts afterwards: memory is the same for ten thousand
images and ten million. A draw follows from the seed and the image's name alone, so that the intervals depend neither on
the order nor on the partition of the images, and two outputs are compared on the same draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbatch.evaluation import calibration, scores
from segbatch.evaluation.boundary import boundary_distance, boundary_f1
from segbatch.evaluation.ranking import RankedImages
from segbatch.output.totals import CONFIDENCE_UNIT
from segbatch.records import digest

MAX_BAND_WIDTH = 40  # pixels of the widest band around boundaries
_F1_UNIT = 2**20  # F1s are summed as integers: exact, so that any order of the images gives the same sum


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image.

    Attributes:
        confusion: int64 (C, C).
        features: What replicates sum, int64 (F,): pixels (hit, true, predicted) of each class at each distance to a
            boundary, (MAX_BAND_WIDTH + 1, 3, C); the boundary F1 of each class and whether it has one, (2, C); their
            mean over the classes of the image, (2,); pixels, correct pixels and confidence of its regions in bins,
            (3, BINS), see ``calibration``.
        confidence: Of the image, NaN if none is stated.
        accuracy: Of the image.
    """

    confusion: np.ndarray
    features: np.ndarray
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class StatedConfidence:
    """The confidence that an output states for one image.

    Attributes:
        mask: Class ids (H, W) before classes are merged.
        image: Mean over the image.
        classes: Mean over the pixels of each class, float64 (C,), NaN for classes that ``mask`` does not contain.
    """

    mask: np.ndarray
    image: float
    classes: np.ndarray


def count_image(
    truth: np.ndarray, mask: np.ndarray, classes: int, stated: StatedConfidence | None = None
) -> ImageCounts:
    """Return the counts of one image.

    Args:
        truth: Class ids (H, W) of the label, negative where ignored.
        mask: Class ids (H, W).
        classes: Number of classes.
    """
    known = truth >= 0
    t, m = truth[known].astype(np.int64), mask[known].astype(np.int64)
    at = (boundary_distance(truth, MAX_BAND_WIDTH)[known].astype(np.int64) - 1) * classes
    hit = t == m
    size = (MAX_BAND_WIDTH + 1) * classes
    near = [np.bincount(a, minlength=size).reshape(-1, classes) for a in ((at + t)[hit], at + t, at + m)]
    f1 = boundary_f1(truth, mask, classes)
    f1s = np.append(f1, scores.mean(f1))
    sums = np.stack([np.rint(np.nan_to_num(f1s) * _F1_UNIT), ~np.isnan(f1s)]).astype(np.int64)
    confusion = np.bincount(t * classes + m, minlength=classes * classes).reshape(classes, classes)
    regions = np.zeros((3, calibration.BINS))
    if stated is not None:
        regions = calibration.region_sums(stated.mask, stated.classes, mask == truth, known)
        regions[2] *= CONFIDENCE_UNIT
    features = [np.stack(near, axis=1).ravel(), sums.ravel(), np.rint(regions).astype(np.int64).ravel()]
    return ImageCounts(confusion, np.concatenate(features), stated.image if stated else np.nan, float(hit.mean()))


class BootstrapAccumulator:
    """Sums of ``ImageCounts``.

    Attributes:
        confusion: int64 (C, C).
        sums: Features float64 (1 + R, F), whole numbers: as counted, then of each of R replicates.
    """

    def __init__(self, classes: int, resamples: int, seed: int) -> None:
        self.classes, self.resamples, self.seed = classes, resamples, seed
        self.images = 0
        self.confusion = np.zeros((classes, classes), np.int64)
        self.ranked = RankedImages()
        self._sizes = ((MAX_BAND_WIDTH + 1) * 3 * classes, 2 * (classes + 1), 3 * calibration.BINS)
        self.sums = np.zeros((1 + resamples, sum(self._sizes)))

    def add(self, names: Sequence[str], counts: Sequence[ImageCounts]) -> None:
        """Add images, whose names must be unique."""
        if not names:
            return
        hashes = [int(digest(name, length=16), 16) for name in names]
        self.sums += self._draws(hashes).astype(np.float64) @ np.stack([c.features for c in counts]).astype(np.float64)
        self.confusion += np.sum([c.confusion for c in counts], axis=0)
        self.ranked.add(hashes, [(c.confidence, c.accuracy) for c in counts])
        self.images += len(names)

    def _draws(self, hashes: Sequence[int]) -> np.ndarray:
        """How often each replicate draws each of the images, int8 (1 + R, N); row 0 is 1."""
        draws = np.ones((1 + self.resamples, len(hashes)), np.int8)
        for n, h in enumerate(hashes):
            draws[1:, n] = np.random.Generator(np.random.PCG64([self.seed, h])).poisson(1.0, self.resamples)
        return draws

    def __iadd__(self, other: BootstrapAccumulator) -> BootstrapAccumulator:
        self.images += other.images
        self.confusion += other.confusion
        self.sums += other.sums
        self.ranked.add(other.ranked.hashes, other.ranked.values)
        return self

    def metrics(self) -> dict[str, np.ndarray]:
        """Return each metric as counted and for each replicate, (1 + R, ...).

        The further axis of metrics per class has C entries, of those of the trimap MAX_BAND_WIDTH (by the width of the
        band), of those of the reliability diagram BINS. Calibration is that of regions: all pixels of one class in one
        image, with one confidence.
        """
        c = self.classes
        pixels, f1, regions = np.split(self.sums, np.cumsum(self._sizes)[:-1], axis=1)
        within = pixels.reshape(-1, MAX_BAND_WIDTH + 1, 3, c).cumsum(axis=1)
        hits, true, predicted = within[:, :, 0], within[:, :, 1], within[:, :, 2]
        ious = scores.iou(hits, true, predicted)
        f1 = scores.ratio(f1[:, : c + 1] / _F1_UNIT, f1[:, c + 1 :])
        trimap_iou, trimap_accuracy = scores.mean(ious), scores.pixel_accuracy(hits, true)
        everything = hits[:, -1], true[:, -1], predicted[:, -1]
        accuracy = scores.accuracy(*everything[:2])
        regions = regions.reshape(-1, 3, calibration.BINS) / np.array([1, 1, CONFIDENCE_UNIT])[:, None]
        bins = calibration.reliability(regions)
        return {
            "pixel_accuracy": trimap_accuracy[:, -1],
            "mean_accuracy": scores.mean(accuracy),
            "mean_iou": trimap_iou[:, -1],
            "frequency_weighted_iou": scores.frequency_weighted_iou(*everything),
            "boundary_f1": f1[:, -1],
            "mean_confidence": calibration.mean_confidence(regions),
            "confidence_gap": calibration.confidence_gap(regions),
            "expected_calibration_error": calibration.expected_calibration_error(regions),
            "spearman": self.ranked.correlation(self._draws(self.ranked.hashes.tolist())),
            "class_iou": ious[:, -1],
            "class_accuracy": accuracy,
            "class_boundary_f1": f1[:, :-1],
            "trimap_mean_iou": trimap_iou[:, :-1],
            "trimap_pixel_accuracy": trimap_accuracy[:, :-1],
            "reliability_share": bins[0],
            "reliability_confidence": bins[1],
            "reliability_accuracy": bins[2],
        }


@dataclass(frozen=True)
class ConfidenceInterval:
    """A metric, or an array of them, with the middle 95 % of its replicates; NaN where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(replicates: np.ndarray) -> ConfidenceInterval:
        """Return the interval of a value of ``BootstrapAccumulator.metrics``, or of a difference of two."""
        value = replicates[0]
        if len(replicates) == 1:
            return ConfidenceInterval(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a class that occurs in no replicate
            low, high = np.nanquantile(replicates[1:], (0.025, 0.975), axis=0)
        return ConfidenceInterval(value, low, high)

    def to_json(self) -> Any:
        """Return ``{"value", "low", "high"}``, of an array a list of these; None for NaN."""
        if self.value.ndim:
            each = zip(self.value, self.low, self.high, strict=True)
            return [ConfidenceInterval(*numbers).to_json() for numbers in each]
        return {k: None if np.isnan(v) else float(v) for k, v in vars(self).items()}
