"""The probability of the final label: the softmax over all classes, kept or not, at the resolution of the mask."""

from __future__ import annotations

import numpy as np
import pytest

from segbatch.crf import _core
from segbatch.records import Scores
from segbatch.refiners.probability import label_probability
from segbatch.refiners.upsample import softmax, upsample
from segbatch.stages.scoring import coarse_scores


def literal(logits: np.ndarray, mask: np.ndarray, size: tuple[int, int], stride: int, temperature: float) -> np.ndarray:
    """Softmax over all classes of the logits (C, h, w) at full size, of the labels in the mask (H, W)."""
    everything = Scores(logits, np.arange(len(logits)), *size, stride)
    return np.take_along_axis(softmax(upsample(everything) / temperature), mask[None].astype(np.int64), axis=0)[0]


def smooth(classes: int, cells: tuple[int, int], scale: float, seed: int = 0) -> np.ndarray:
    """Logits float32 (classes, h, w) that change over some cells, as a network's do."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, scale, (classes, -(-cells[0] // 4) + 1, -(-cells[1] // 4) + 1)).astype(np.float32)
    return upsample(Scores(coarse, np.arange(classes), *cells, 4))


@pytest.mark.parametrize("isa", _core.isa_names())
@pytest.mark.parametrize(
    ("classes", "size", "stride"),
    [(1, (5, 7), 4), (3, (40, 41), 8), (8, (33, 18), 4), (9, (3, 50), 1), (21, (61, 83), 4), (150, (20, 24), 8)],
)
def test_the_kernel_is_the_softmax_of_upsampled_logits(
    isa: str, classes: int, size: tuple[int, int], stride: int
) -> None:
    cells = -(-size[0] // stride), -(-size[1] // stride)
    logits = np.random.default_rng(0).normal(0, 6, (classes, *cells)).astype(np.float32)
    mask = np.random.default_rng(1).integers(0, classes, size, np.int32)
    found = _core.label_probability(logits, mask, stride, isa)
    np.testing.assert_allclose(found, literal(logits, mask, size, stride, 1), atol=2e-6)
    assert found.dtype == np.float32
    assert found.max() <= 1


def test_scores_at_the_ends_of_the_range_are_probabilities() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    logits[:, :, 0] = [[-65504], [0], [-65504]]
    logits[:, :, 1] = [[0], [-65504], [-65504]]
    for label, expected in ((0, [0, 0, 1, 1]), (1, [1, 1, 0, 0]), (2, [0, 0, 0, 0])):
        found = _core.label_probability(logits, np.full((4, 4), label, np.int32), 2)
        np.testing.assert_array_equal(found[0].round(6), expected)


def some_likely(classes: int, likely: int, lead: float, scale: float) -> np.ndarray:
    """Smooth logits float32 (classes, 47, 63) in which the first ``likely`` classes have a lead."""
    return smooth(classes, (47, 63), scale) + np.where(np.arange(classes) < likely, lead, 0)[:, None, None]


@pytest.mark.parametrize("temperature", [0.8, 1.0, 1.15])
def test_classes_that_were_left_out_keep_their_share(temperature: float) -> None:
    logits, size = some_likely(21, 6, 7.0, 2.0).astype(np.float32), (188, 250)
    scores = coarse_scores(logits, *size, 4, 0.02)
    mask = scores.class_ids[upsample(scores).argmax(0)]
    error = label_probability(scores, mask, 21, temperature) - literal(logits, mask, size, 4, temperature)
    assert 6 <= len(scores.class_ids) < 15
    # That those left out are equally likely is all that is assumed, and does not matter at temperature 1.
    bound = 1e-3 if temperature == 1 else 5e-3
    assert np.abs(error).max() < bound
    assert np.abs(error).mean() < bound / 5


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_flat_scores_of_150_classes_are_not_made_sure_by_leaving_classes_out(temperature: float) -> None:
    logits, size = some_likely(150, 30, 1.5, 0.4).astype(np.float32), (188, 250)
    scores = coarse_scores(logits, *size, 4, 0.01)
    upsampled = upsample(scores)
    mask = scores.class_ids[upsampled.argmax(0)]
    right = literal(logits, mask, size, 4, temperature)
    found = label_probability(scores, mask, 150, temperature)
    assert len(scores.class_ids) < 100
    np.testing.assert_allclose(found, right, rtol=0.01)
    assert abs((found - right).mean()) < 1e-4
    renormalized = softmax(upsampled / temperature).max(axis=0)
    assert (renormalized - right).mean() > 0.01  # what would be said if the kept classes were all there are


def test_a_label_without_scores_is_refused() -> None:
    scores = Scores(np.zeros((2, 3, 4), np.float16), np.array([1, 5], np.int16), 10, 14, 4)
    assert label_probability(scores, np.full((10, 14), 5), 6).shape == (10, 14)
    with pytest.raises(ValueError, match="labels holds one that has no scores"):
        label_probability(scores, np.full((10, 14), 2), 6)
