"""Bands around boundaries and the boundary F1, against literal versions that look at every pair of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segbatch.evaluation.boundary import boundary_distance, boundary_f1


def blobs(seed: int, height: int = 25, width: int = 31, ignored: float = 0.0) -> np.ndarray:
    """Class ids -1 (ignored) to 3 in patches of all sizes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (height // 5 + 1, width // 5 + 1))
    ids = np.kron(coarse, np.ones((5, 5), int))[:height, :width]
    specks = rng.random((height, width)) < 0.03
    ids = np.where(specks, rng.integers(0, 4, ids.shape), ids)
    ids[rng.random(ids.shape) < ignored] = -1
    if ignored:
        ids[8:14, 3:17] = -1
    return ids


def literal_band(truth: np.ndarray, widest: int) -> np.ndarray:
    """The narrowest square around each pixel that holds another id."""
    found = np.full(truth.shape, widest + 1)
    for y, x in np.ndindex(*truth.shape):
        for w in range(widest, 0, -1):
            square = truth[max(y - w, 0) : y + w + 1, max(x - w, 0) : x + w + 1]
            if (square != truth[y, x]).any():
                found[y, x] = w
    return found


@pytest.mark.parametrize("ignored", [0.0, 0.02])
def test_distances_are_sides_of_squares_that_contain_another_class(ignored: float) -> None:
    for seed in range(3):
        truth = blobs(seed, ignored=ignored)
        truth[:, 18:] = 2  # something to be far from boundaries in
        assert np.array_equal(boundary_distance(truth, 6), literal_band(truth, 6))
    assert (boundary_distance(np.zeros((9, 9), int), 40) == 41).all()
    assert boundary_distance(np.zeros((0, 5), int), 40).shape == (0, 5)


def test_bands_are_deeplabs_dilated_void_where_void_separates() -> None:
    truth = np.zeros((30, 40), int)
    truth[8:20, 10:28] = -1
    truth[10:18, 12:26] = 3
    for w in (1, 3, 6):
        dilated = np.zeros_like(truth, bool)
        for y, x in np.argwhere(truth == -1):
            dilated[max(y - w, 0) : y + w + 1, max(x - w, 0) : x + w + 1] = True
        assert np.array_equal((boundary_distance(truth, 40) <= w) & (truth >= 0), dilated & (truth >= 0))


def literal_f1(truth: np.ndarray, mask: np.ndarray, classes: int, reach: float) -> list[float]:
    """As the docstring of ``boundary_f1`` says, pixel by pixel."""
    height, width = truth.shape
    filled = truth.copy()
    for _ in range(math.ceil(reach)):
        before = filled.copy()
        for y, x in np.argwhere(before < 0):
            filled[y, x] = before[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max()
    mask = np.where(filled < 0, -1, mask)

    def edge(ids: np.ndarray, c: int) -> list[tuple[int, int]]:
        found = []
        for y, x in np.argwhere(ids == c).tolist():
            beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if any(0 <= a < height and 0 <= b < width and ids[a, b] not in (c, -1) for a, b in beside):
                found.append((y, x))
        return found

    def near(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        return float(np.mean([any(math.dist(p, q) <= reach for q in others) for p in points]))

    scores = []
    for c in range(classes):
        true, given = edge(filled, c), edge(mask, c)
        if not true and not given:
            scores.append(math.nan)
        elif not true or not given:
            scores.append(0.0)
        else:
            p, r = near(given, true), near(true, given)
            scores.append(2 * p * r / (p + r) if p + r else 0.0)
    return scores


@pytest.mark.parametrize("reach", [0.6, 1.0, 2.3, 5.0])
@pytest.mark.parametrize("ignored", [0.0, 0.03])
def test_boundary_f1_is_the_literal_one(reach: float, ignored: float) -> None:
    for seed in range(2):
        truth, mask = blobs(seed, ignored=ignored), np.roll(blobs(seed + 5 * seed), 1, axis=1)
        found = boundary_f1(truth, mask, 5, reach)
        assert found == pytest.approx(literal_f1(truth, mask, 5, reach), abs=1e-12, nan_ok=True)
        assert np.isnan(found[4])


def test_the_tolerance_is_a_share_of_the_diagonal() -> None:
    truth, mask = (np.zeros((300, 400), int) for _ in range(2))
    truth[:, 200:] = 1
    for shift, score in ((3, 1.0), (4, 0.0)):  # 0.75 % of 500 is 3.75
        mask[:] = 0
        mask[:, 200 + shift :] = 1
        assert boundary_f1(truth, mask, 2).tolist() == [score, score]


def test_the_rims_that_voc_draws_are_boundaries() -> None:
    truth = np.zeros((60, 80), int)
    truth[18:42, 18:62] = -1
    truth[23:37, 23:57] = 1
    mask = np.zeros_like(truth)
    mask[20:40, 20:60] = 1
    assert boundary_f1(truth, mask, 2, 3.0).tolist() == [1.0, 1.0]
    assert boundary_f1(truth, np.zeros_like(truth), 2, 3.0).tolist() == [0.0, 0.0]


def test_deep_void_has_no_boundaries() -> None:
    truth = np.zeros((40, 40), int)
    truth[:, 20:] = -1
    mask = np.zeros_like(truth)
    mask[:, 30:] = 1
    assert np.isnan(boundary_f1(truth, mask, 2, 4.0)).all()
