"""Polygons, filled by OpenCV: the same pixels, holes and all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segbatch.codecs.polygons import polygons


def fill(rings: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for ring in rings:
        assert len(ring) >= 3
        one = np.zeros(shape, np.uint8)
        cv2.fillPoly(one, [ring.astype(np.int32)], 1)
        mask |= one
    return mask.astype(bool)


@given(arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))))
def test_filled_polygons_are_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(fill(polygons(mask), mask.shape), mask)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_noise_and_smooth_shapes_keep_their_holes(share: float) -> None:
    rng = np.random.default_rng(0)
    for sigma in (0.5, 2.0, 6.0):
        noise = cv2.GaussianBlur(rng.normal(size=(150, 210)), (0, 0), sigma)
        mask = noise < np.quantile(noise, share)
        assert np.array_equal(fill(polygons(mask), mask.shape), mask)


def test_a_ring_within_a_ring_is_two_components() -> None:
    mask = np.zeros((40, 40), bool)
    for inset in (2, 8):
        mask[inset:-inset, inset:-inset] = True
        mask[inset + 3 : -inset - 3, inset + 3 : -inset - 3] = False
    assert len(polygons(mask)) == 2
    assert np.array_equal(fill(polygons(mask), mask.shape), mask)
