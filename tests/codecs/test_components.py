"""Connected components, compared with OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segbatch.codecs.components import components


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (24, 31), (64, 64)])
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_regions_and_areas_are_those_of_opencv(shape: tuple[int, int], classes: int) -> None:
    rng = np.random.default_rng(shape[0] * 7 + classes)
    for _ in range(20):
        mask = rng.integers(0, classes, shape).astype(np.uint8)
        region, areas = components(mask)
        expected = 0
        for value in range(classes):
            count, labels = cv2.connectedComponents((mask == value).astype(np.uint8), connectivity=8)
            expected += count - 1
            for i in range(1, count):
                (own,) = np.unique(region[labels == i])
                assert np.array_equal(region == own, labels == i)
                assert areas[own] == (labels == i).sum()
        assert len(areas) == expected


def test_a_spiral_is_one_region_and_an_empty_mask_has_none() -> None:
    mask = np.zeros((41, 41), np.uint8)
    for ring in range(0, 20, 2):
        mask[ring : 41 - ring, ring] = mask[40 - ring, ring : 41 - ring] = 1
        mask[ring : 41 - ring, 40 - ring] = mask[ring, ring + 2 : 41 - ring] = 1
        mask[ring + 2, ring : ring + 3] = 1
    region, areas = components(mask)
    assert len(np.unique(region[mask == 1])) == 1
    assert areas.sum() == mask.size
    assert components(np.zeros((0, 5), np.uint8))[1].size == 0
