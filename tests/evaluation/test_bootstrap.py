"""Sums over images: every metric compared with scikit-learn, and intervals that follow from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from segbatch.evaluation.bootstrap import (
    MAX_BAND_WIDTH,
    BootstrapAccumulator,
    ConfidenceInterval,
    ImageCounts,
    StatedConfidence,
    count_image,
)
from segbatch.evaluation.boundary import boundary_distance, boundary_f1

CLASSES = 5
Pair = tuple[np.ndarray, np.ndarray]


def images(number: int) -> list[Pair]:
    """Labels with ignored pixels, in patches of which some pixels are far from boundaries, and similar masks."""
    found = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        truth = np.kron(rng.integers(0, CLASSES - 1, (2, 2)), np.ones((60, 70), int))
        mask = np.where(
            rng.random(truth.shape) < 0.6 + 0.3 * rng.random(), truth, rng.integers(0, CLASSES, truth.shape)
        )
        truth[:, : rng.integers(0, 9)] = -1
        found.append((truth, mask))
    return found


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return images(12)


@pytest.fixture(scope="module")
def counted(pairs: list[Pair]) -> list[ImageCounts]:
    return [count_image(t, m, CLASSES, stated(m, seed)) for seed, (t, m) in enumerate(pairs)]


def stated(mask: np.ndarray, seed: int) -> StatedConfidence:
    classes = np.random.default_rng(seed).uniform(0.3, 1, CLASSES)
    return StatedConfidence(mask, float(classes[mask].mean()), classes)


def tally(
    counted: list[ImageCounts], names: list[str] | None = None, resamples: int = 200, seed: int = 0
) -> BootstrapAccumulator:
    total = BootstrapAccumulator(CLASSES, resamples, seed)
    total.add(names or [f"{i:03d}" for i in range(len(counted))], counted)
    return total


def test_agrees_with_scikit_learn(pairs: list[Pair], counted: list[ImageCounts]) -> None:
    total = tally(counted)
    found = {name: values[0] for name, values in total.metrics().items()}
    t = np.concatenate([t[t >= 0] for t, _ in pairs])
    m = np.concatenate([m[t >= 0] for t, m in pairs])
    distance = np.concatenate([boundary_distance(t, MAX_BAND_WIDTH)[t >= 0] for t, _ in pairs])
    iou = jaccard_score(t, m, average=None)
    frequency = np.bincount(t, minlength=CLASSES) / len(t)
    true = np.unique(t)
    assert np.array_equal(total.confusion, confusion_matrix(t, m))
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(t, m), abs=1e-9)
    hits = [accuracy_score(t[t == c], m[t == c]) for c in true]
    assert found["class_accuracy"][true] == pytest.approx(hits, abs=1e-9)
    assert found["mean_accuracy"] == pytest.approx(np.mean(hits), abs=1e-9)
    assert found["class_iou"] == pytest.approx(iou, abs=1e-9)
    assert found["mean_iou"] == pytest.approx(jaccard_score(t, m, average="macro"), abs=1e-9)
    assert found["frequency_weighted_iou"] == pytest.approx((frequency * iou).sum(), abs=1e-9)
    assert found["frequency_weighted_iou"] == pytest.approx(jaccard_score(t, m, average="weighted"), abs=1e-9)
    for w in (1, 2, 7, MAX_BAND_WIDTH):
        near = distance <= w
        assert 0 < near.sum() < len(near)
        assert found["trimap_pixel_accuracy"][w - 1] == pytest.approx(accuracy_score(t[near], m[near]), abs=1e-9)
        expected = jaccard_score(t[near], m[near], average="macro")
        assert found["trimap_mean_iou"][w - 1] == pytest.approx(expected, abs=1e-9)


def test_boundary_f1_is_the_mean_over_images(pairs: list[Pair], counted: list[ImageCounts]) -> None:
    found = {name: values[0] for name, values in tally(counted).metrics().items()}
    each = np.stack([boundary_f1(t, m, CLASSES) for t, m in pairs])
    assert found["class_boundary_f1"] == pytest.approx(np.nanmean(each, axis=0), abs=1e-6)
    assert found["boundary_f1"] == pytest.approx(np.mean([np.nanmean(f) for f in each]), abs=1e-6)


def test_calibration_is_that_of_regions_and_ranks_are_those_of_images(
    pairs: list[Pair], counted: list[ImageCounts]
) -> None:
    """By definition: every class of every mask with its confidence, its labeled pixels, and which of them are right."""
    found = {name: values[0] for name, values in tally(counted).metrics().items()}
    regions = []
    for seed, (t, m) in enumerate(pairs):
        for c, confidence in enumerate(stated(m, seed).classes):
            at = (m == c) & (t >= 0)
            regions.append((confidence, at.sum(), (t[at] == c).sum()))
    confidence, pixels, right = np.array(regions).T
    total = pixels.sum()
    assert found["mean_confidence"] == pytest.approx((confidence * pixels).sum() / total, abs=1e-6)
    gap = abs(found["mean_confidence"] - found["pixel_accuracy"])
    assert found["confidence_gap"] == pytest.approx(gap, abs=1e-6)
    error = 0.0
    for i in range(15):
        inside = (confidence >= i / 15) & (confidence < (i + 1) / 15)
        error += abs((confidence * pixels)[inside].sum() - right[inside].sum()) / total
        assert found["reliability_share"][i] == pytest.approx(pixels[inside].sum() / total)
        if inside.any():
            accuracy = right[inside].sum() / pixels[inside].sum()
            assert found["reliability_accuracy"][i] == pytest.approx(accuracy)
    assert found["expected_calibration_error"] == pytest.approx(error, abs=1e-6)
    of_images = [stated(m, seed).image for seed, (_, m) in enumerate(pairs)]
    accuracies = [(t == m)[t >= 0].mean() for t, m in pairs]
    assert found["spearman"] == pytest.approx(spearmanr(of_images, accuracies).statistic)
    estimate = ConfidenceInterval.of(tally(counted).metrics()["spearman"])
    assert estimate.low < estimate.value < estimate.high


def test_order_and_partition_change_nothing(counted: list[ImageCounts]) -> None:
    whole = tally(counted)
    names = [f"{i:03d}" for i in range(len(counted))]
    parts = BootstrapAccumulator(CLASSES, 200, 0)
    for chosen in (slice(7, None), slice(0, 0), slice(0, 1), slice(1, 7)):
        parts += tally(counted[chosen][::-1], names[chosen][::-1])
    assert parts.images == whole.images
    assert np.array_equal(parts.confusion, whole.confusion)
    assert np.array_equal(parts.sums, whole.sums)
    assert np.array_equal(parts.metrics()["spearman"], whole.metrics()["spearman"])


def test_the_seed_and_the_names_decide_the_replicates(counted: list[ImageCounts]) -> None:
    first = tally(counted)
    assert np.array_equal(first.sums, tally(counted).sums)
    for other in (tally(counted, seed=1), tally(counted, [f"b{i}" for i in range(len(counted))])):
        assert np.array_equal(first.sums[0], other.sums[0])
        assert not np.array_equal(first.sums[1:], other.sums[1:])


def test_intervals_are_those_of_drawing_images_with_replacement() -> None:
    """Against the textbook bootstrap, on images that differ much: their standard errors agree within a fifth."""
    number, rng = 60, np.random.default_rng(5)
    counted = []
    for right in rng.uniform(0.3, 0.95, number):
        truth = rng.integers(0, 2, (20, 20))
        counted.append(count_image(truth, np.where(rng.random(truth.shape) < right, truth, 1 - truth), 2))
    total = BootstrapAccumulator(2, 2000, 3)
    total.add([str(i) for i in range(number)], counted)
    found = ConfidenceInterval.of(total.metrics()["pixel_accuracy"])
    accuracy = np.array([np.trace(c.confusion) / c.confusion.sum() for c in counted])
    means = accuracy[rng.integers(0, number, (2000, number))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    assert found.value == pytest.approx(accuracy.mean())
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)
    assert found.low < found.value < found.high


def test_equal_outputs_differ_by_nothing_and_better_ones_surely(pairs: list[Pair], counted: list[ImageCounts]) -> None:
    a = tally(counted).metrics()["mean_iou"]
    assert vars(ConfidenceInterval.of(a - tally(counted).metrics()["mean_iou"])) == {"value": 0, "low": 0, "high": 0}
    better = [count_image(t, np.where(np.arange(m.shape[1]) % 10 == 0, np.maximum(t, 0), m), CLASSES) for t, m in pairs]
    gain = ConfidenceInterval.of(tally(better).metrics()["mean_iou"] - a)
    assert 0 < gain.low <= gain.value <= gain.high
    # The draws are shared, so the difference is known far better than either metric.
    spread = ConfidenceInterval.of(a)
    assert gain.high - gain.low < (spread.high - spread.low) / 2


def test_without_replicates_or_images_there_are_no_intervals(counted: list[ImageCounts]) -> None:
    alone = ConfidenceInterval.of(tally(counted, resamples=0).metrics()["mean_iou"])
    assert not np.isnan(alone.value)
    assert np.isnan(alone.low)
    nothing = {name: ConfidenceInterval.of(f) for name, f in BootstrapAccumulator(3, 20, 0).metrics().items()}
    assert all(np.isnan(e.value).all() and np.isnan(e.high).all() for e in nothing.values())
