"""Augmented examples: image and label stay together, and the same place gives the same example."""

from __future__ import annotations

import numpy as np
import pytest

from segbatch.training.augment import Augment
from segbatch.training.stream import Stream

COLORS = np.array([[20, 30, 40], [220, 60, 90], [80, 200, 230]], np.uint8)


def example(height: int = 60, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((height, width), np.int32)
    truth[10:40, 5:30], truth[20:55, 50:85] = 1, 2
    return COLORS[truth], truth


class Few:
    """Examples in memory."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, truth = example()
        image[:, :, 0] = index
        return image, truth


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.7, 1.7), (0.4, 2.5)])
def test_labels_move_with_their_pixels(scale: tuple[float, float]) -> None:
    augment = Augment((48, 56), scale, fill=(255, 0, 255))
    for seed in range(20):
        image, truth = augment(*example(), np.random.default_rng(seed))
        assert image.shape == (48, 56, 3)
        assert truth.shape == (48, 56)
        assert (image[truth < 0] == (255, 0, 255)).all()
        # Blended at the borders between classes, where nearest and bilinear differ by up to a pixel.
        nearest = np.abs(image[:, :, None].astype(int) - COLORS).sum(-1).argmin(-1)
        known = truth >= 0
        assert (nearest == truth)[known].mean() > 0.97
        inside = known & _inside(truth)
        assert (nearest == truth)[inside].all()


def _inside(truth: np.ndarray) -> np.ndarray:
    """Pixels whose neighbors up to two pixels away have their class."""
    same = np.zeros(truth.shape, bool)
    same[2:-2, 2:-2] = True
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            same &= np.roll(truth, (dy, dx), (0, 1)) == truth
    return same


def test_half_of_the_images_are_mirrored_and_nothing_else_happens() -> None:
    image, truth = example()
    mirrored = 0
    for seed in range(40):
        got, label = Augment()(image, truth, np.random.default_rng(seed))
        flipped = bool((got == image[:, ::-1]).all() and (label == truth[:, ::-1]).all())
        assert flipped or ((got == image).all() and (label == truth).all())
        mirrored += flipped
    assert 10 <= mirrored <= 30


def test_colors_change_as_far_as_allowed_and_labels_do_not() -> None:
    image, truth = example()
    gray = np.full_like(image, 100)
    for seed in range(20):
        got, label = Augment(flip=False, jitter=0.2)(image, truth, np.random.default_rng(seed))
        assert (label == truth).all()
        assert (got != image).any()
        # Gray has no saturation and no contrast to change: brightness alone.
        got, _ = Augment(flip=False, jitter=0.2)(gray, truth, np.random.default_rng(seed))
        assert len(np.unique(got)) == 1
        assert 80 <= got[0, 0, 0] <= 120


def test_a_place_has_one_example_however_it_is_read() -> None:
    augment = Augment((40, 40), (0.5, 2.0), jitter=0.3)
    places = [range(4), range(4, 8), range(8, 12)]
    runs = [list(Stream(Few(5), augment, seed=3).batches(places, threads)) for threads in (1, 4)]
    for one, other in zip(*runs, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a[0] == b[0]).all()
            assert (a[1] == b[1]).all()
    (later,) = list(Stream(Few(5), augment, seed=3).batches([range(8, 12)], 2))
    assert all((a[0] == b[0]).all() for a, b in zip(later, runs[0][2], strict=True))
    (other_seed,) = list(Stream(Few(5), augment, seed=4).batches([range(8, 12)], 2))
    assert any((a[0] != b[0]).any() for a, b in zip(later, other_seed, strict=True))


def test_an_epoch_has_each_image_once_in_an_order_of_its_own() -> None:
    stream = Stream(Few(50), Augment(), seed=0)
    epochs = [[stream.index(place) for place in range(e * 50, e * 50 + 50)] for e in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
