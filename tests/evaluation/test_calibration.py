"""Calibration in bins against its definition, and rank correlation against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from segbatch.evaluation import calibration
from segbatch.evaluation.ranking import MAX_IMAGES, RankedImages, spearman

RANDOM = np.random.default_rng(0)


def test_a_confidence_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    confidence = RANDOM.uniform(0, 1, 200_000)
    sums = calibration.binned(confidence, RANDOM.random(len(confidence)) < confidence)
    assert calibration.expected_calibration_error(sums) < 0.01
    assert calibration.confidence_gap(sums) < 0.005
    share, stated, right = calibration.reliability(sums)
    np.testing.assert_allclose(share, 1 / calibration.BINS, atol=0.005)
    np.testing.assert_allclose(stated, right, atol=0.02)
    np.testing.assert_allclose(stated, (np.arange(calibration.BINS) + 0.5) / calibration.BINS, atol=0.005)


def test_the_error_is_that_of_each_bin_and_the_gap_that_of_all() -> None:
    """0.9 where 70 % are right and 0.5 where 70 % are: each is 0.2 off, together they are right."""
    confidence, right = np.repeat([0.9, 0.5], 10), np.tile([1] * 7 + [0] * 3, 2)
    sums = calibration.binned(confidence, right)
    assert calibration.expected_calibration_error(sums) == pytest.approx(0.2)
    assert calibration.confidence_gap(sums) == pytest.approx(0)
    assert calibration.mean_confidence(sums) == pytest.approx(0.7)
    np.testing.assert_array_equal(np.flatnonzero(sums[0]), [7, 13])
    groups = calibration.binned(np.array([0.9, 0.5]), np.array([7, 7]), np.array([10, 10]))
    np.testing.assert_allclose(groups, sums)


def test_confidences_of_0_and_1_are_in_the_outer_bins() -> None:
    sums = calibration.binned(np.array([0.0, 1.0]), np.array([0, 1]))
    np.testing.assert_array_equal(np.flatnonzero(sums[0]), [0, calibration.BINS - 1])


def test_no_pixels_have_no_calibration() -> None:
    sums = np.zeros((2, 3, calibration.BINS))
    for metric in (calibration.mean_confidence, calibration.confidence_gap, calibration.expected_calibration_error):
        assert np.isnan(metric(sums)).tolist() == [True, True]


def test_regions_are_the_pixels_of_a_class_that_have_a_label() -> None:
    mask = np.array([[0, 0, 2], [0, 2, 2]])
    known = np.array([[True, True, True], [False, True, False]])
    right = np.array([[True, False, True], [True, True, False]])
    sums = calibration.region_sums(mask, np.array([0.3, np.nan, 0.8]), right, known)
    expected = calibration.binned(np.array([0.3, 0.8]), np.array([1, 2]), np.array([2, 2]))
    np.testing.assert_array_equal(sums, expected)


def test_rank_correlation_is_that_of_the_images_as_often_as_they_are_drawn() -> None:
    x = RANDOM.normal(size=80).round(1)  # with equal values
    y = (x + RANDOM.normal(size=80)).round(1)
    draws = RANDOM.poisson(1, (70, 80)).astype(np.int8)
    draws[0] = 1
    for found, drawn in zip(spearman(x, y, draws), draws, strict=True):
        assert found == pytest.approx(spearmanr(np.repeat(x, drawn), np.repeat(y, drawn)).statistic, abs=1e-9)
    assert np.isnan(spearman(np.ones(5), np.arange(5), np.ones((1, 5))))
    assert np.isnan(spearman(np.zeros(0), np.zeros(0), np.ones((3, 0)))).all()


def test_of_very_many_images_the_same_sample_is_ranked_whatever_the_order() -> None:
    hashes = RANDOM.integers(0, 2**63, 2 * MAX_IMAGES, np.uint64)
    values = RANDOM.random((len(hashes), 2), np.float32)
    whole, parts = RankedImages(), RankedImages()
    whole.add(hashes, values)
    for part in np.array_split(RANDOM.permutation(len(hashes)), 7):
        of_part = RankedImages()
        of_part.add(hashes[part], values[part])
        parts.add(of_part.hashes, of_part.values)
    assert len(whole.hashes) == MAX_IMAGES
    assert whole.hashes.max() == np.sort(hashes)[MAX_IMAGES - 1]
    np.testing.assert_array_equal(parts.hashes, whole.hashes)
    np.testing.assert_array_equal(parts.values, whole.values)
