"""Sums over images of all that an evaluation is made of, once as counted and once for each bootstrap replicate.

A replicate weighs each image by a draw from Poisson(1), which stands for drawing images with replacement (Hanley &
MacGibbon 2006) and needs neither the number of images nor their counts afterwards: memory is the same for ten thousand
images and ten million. A draw follows from the seed and the image's name alone, so that every order and partition of
the images gives the same intervals, and two outputs are compared on the same draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbatch.evaluation import calibration, scores
from segbatch.evaluation.boundary import bands, boundary_f1
from segbatch.evaluation.ranking import RankedImages
from segbatch.output.totals import CONFIDENCE_UNIT
from segbatch.records import digest

MAX_BAND_WIDTH = 40  # pixels of the widest band around boundaries
_F1_UNIT = 2**20  # F1s are summed as integers: exact, so that any order of the images gives the same sum


@dataclass(frozen=True)
class Counts:
    """One image: its confusion matrix int64 (C, C), and ``features`` int64 (F,), what replicates sum up.

    Features are pixels (hit, true, predicted) of each class at each distance to a boundary, (MAX_BAND_WIDTH + 1, 3, C);
    the boundary F1 of each class, and whether it has one, (2, C); their mean over the image's classes, likewise (2,);
    pixels, right pixels and confidence of its regions in bins (3, BINS), see ``calibration``. ``confidence`` (NaN if
    none is stated) and ``accuracy`` are those of the image.
    """

    confusion: np.ndarray
    features: np.ndarray
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Stated:
    """What an output says of the confidence of one image, and of each class in it: float64 (C,), NaN where none.

    ``mask`` (H, W) are the class ids that this is said of.
    """

    mask: np.ndarray
    image: float
    classes: np.ndarray


def count_image(truth: np.ndarray, mask: np.ndarray, classes: int, stated: Stated | None = None) -> Counts:
    """What is counted of a label (H, W), void negative, and a mask (H, W), both ids of ``classes`` classes."""
    known = truth >= 0
    t, m = truth[known].astype(np.int64), mask[known].astype(np.int64)
    at = (bands(truth, MAX_BAND_WIDTH)[known].astype(np.int64) - 1) * classes
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
    return Counts(confusion, np.concatenate(features), stated.image if stated else np.nan, float(hit.mean()))


class BootstrapAccumulator:
    """Sums of ``Counts``: ``confusion`` int64 (C, C); ``sums`` float64 (1 + R, F), whole numbers, row 0 as counted."""

    def __init__(self, classes: int, resamples: int, seed: int) -> None:
        self.classes, self.resamples, self.seed = classes, resamples, seed
        self.images = 0
        self.confusion = np.zeros((classes, classes), np.int64)
        self.ranked = RankedImages()
        self._sizes = ((MAX_BAND_WIDTH + 1) * 3 * classes, 2 * (classes + 1), 3 * calibration.BINS)
        self.sums = np.zeros((1 + resamples, sum(self._sizes)))

    def add(self, names: Sequence[str], counts: Sequence[Counts]) -> None:
        """Add images, each under a name of its own."""
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

    def figures(self) -> dict[str, np.ndarray]:
        """Every figure as counted and for each replicate, (1 + R,).

        Of each class (…, C), of each band (…, MAX_BAND_WIDTH), of each bin of confidence (…, BINS). Calibration is that
        of regions: all pixels of one class in one image, with one confidence.
        """
        c = self.classes
        pixels, f1, regions = np.split(self.sums, np.cumsum(self._sizes)[:-1], axis=1)
        within = pixels.reshape(-1, MAX_BAND_WIDTH + 1, 3, c).cumsum(axis=1)
        hits, true, predicted = within[:, :, 0], within[:, :, 1], within[:, :, 2]
        ious = scores.iou(hits, true, predicted)
        f1 = scores.share(f1[:, : c + 1] / _F1_UNIT, f1[:, c + 1 :])
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
    """A figure, or an array of them, with the middle 95 % of its replicates; NaN where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(figure: np.ndarray) -> ConfidenceInterval:
        """From (1 + R, ...) of ``BootstrapAccumulator.figures``, or a difference of two of them."""
        if len(figure) == 1:
            return ConfidenceInterval(figure[0], np.full_like(figure[0], np.nan), np.full_like(figure[0], np.nan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a class that occurs in no replicate
            low, high = np.nanquantile(figure[1:], (0.025, 0.975), axis=0)
        return ConfidenceInterval(figure[0], low, high)
