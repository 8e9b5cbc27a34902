"""Agreement of two masks."""

from __future__ import annotations

import numpy as np
import pytest

from segbatch.codecs import mask_png
from segbatch.evaluation.agreement import (
    CommonClasses,
    confusion,
    have_equal_pixels,
    largest_changes,
    mean_iou,
)
from segbatch.labels import LabelSet

PALETTE = LabelSet.of([f"class {i}" for i in range(8)]).palette()


def mask(seed: int, num_classes: int = 5, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_classes, (height // 10, width // 10)).repeat(10, 0).repeat(10, 1)


def png(values: np.ndarray, palette: bytes = PALETTE) -> bytes:
    return mask_png.encode(values, palette, 8)


def test_the_confusion_counts_every_pixel_once() -> None:
    a, b = mask(1), mask(2)
    counts = confusion(a, b, 5)
    for i in range(5):
        for j in range(5):
            assert counts[i, j] == ((a == i) & (b == j)).sum()
    with pytest.raises(ValueError, match="the masks are 30 x 40 and 40 x 30 pixels"):
        confusion(a, b.T, 5)
    with pytest.raises(ValueError, match="holds the id 4, but there are 4 classes"):
        confusion(a, b, 4)


def test_equal_pixels_with_other_palettes_are_recognized_without_decoding() -> None:
    other = bytes(reversed(PALETTE))
    assert png(mask(1)) != png(mask(1), other)
    assert have_equal_pixels(png(mask(1)), png(mask(1), other))
    assert not have_equal_pixels(png(mask(1)), png(mask(2)))
    assert not have_equal_pixels(png(mask(1)), png(mask(1).T))


def test_the_mean_iou_of_two_masks() -> None:
    a = np.zeros((4, 4), np.uint8)
    b = a.copy()
    b[:2] = 3
    assert mean_iou(png(a), png(a)) == 1
    assert mean_iou(png(a), png(b)) == mean_iou(png(b), png(a)) == 0.25  # 8 of 16 pixels, and none of 8
    assert mean_iou(png(b), png(b.repeat(2, 0).repeat(3, 1))) == 1


def test_classes_are_matched_by_name() -> None:
    a, b = LabelSet.of(["sky", "road", "car"]), LabelSet.of(["road", "tree", "sky"])
    common = CommonClasses(a, b)
    assert (common.names, common.only_a, common.only_b) == (("sky", "road", "car", "tree"), ("car",), ("tree",))
    assert common.ids_of_b.tolist() == [1, 3, 0]
    assert not common.are_equal
    assert CommonClasses(a, a).are_equal
    assert not CommonClasses(a, LabelSet.of(["road", "sky", "car"])).are_equal


def test_the_largest_changes_are_named_from_a_to_b() -> None:
    counts = np.array([[90, 7, 0], [1, 50, 9], [0, 0, 3]])
    assert largest_changes(counts, ["sky", "road", "car"]) == [("road", "car", 9), ("sky", "road", 7)]
    assert largest_changes(np.diag([1, 2, 3]), ["sky", "road", "car"]) == []
