"""The refiners: coarse scores in, the mask of the image out."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from segbatch.chunk import Scores
from segbatch.crf import CRFParams, DenseCRF
from segbatch.refiners import build, names
from segbatch.refiners.densecrf import DenseCRFRefiner
from segbatch.refiners.none import NoRefiner, pick
from segbatch.refiners.upsample import softmax, upsample
from segbatch.runtime.stages import coarse_scores
from segbatch.spec import JobSpec


def network_logits(labels: int, cells: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Scores as a network's: a few labels with much to say, the others with little, smooth over the image."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(labels, *cells)) * 0.7
    strong = random.choice(labels, min(4, labels), replace=False)
    rough = random.normal(size=(len(strong), -(-cells[0] // 8), -(-cells[1] // 8))) * 4
    logits[strong] += np.kron(rough, np.ones((8, 8)))[:, : cells[0], : cells[1]] + 6
    return logits.astype(np.float32)


def scores_of(image: np.ndarray, stride: int = 8, labels: int = 21, prune: float = 1e-3) -> Scores:
    height, width = image.shape[:2]
    return coarse_scores(
        network_logits(labels, (-(-height // stride), -(-width // stride))), height, width, stride, prune
    )


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("size", [(61, 83), (8, 8), (1, 1), (3, 40)])
def test_every_refiner_gives_a_mask_of_the_images_size(name: str, size: tuple[int, int]) -> None:
    refiner = build(JobSpec.create(inputs=["in"], output="out", refiner=name))
    image = np.array(data.astronaut()[: size[0], : size[1]])
    scores = scores_of(image)
    mask, marginal = refiner.refine(image if refiner.needs_image else None, scores)
    assert (mask.dtype, marginal.dtype, mask.shape, marginal.shape) == (np.int16, np.float32, size, size)
    assert set(np.unique(mask)) <= set(scores.class_ids.tolist())
    assert ((marginal > 0) & (marginal <= 1.0001)).all()


@pytest.mark.parametrize("name", names())
def test_one_class_is_the_mask(name: str) -> None:
    scores = Scores(np.zeros((1, 2, 3), np.float16), np.array([7], np.int16), 10, 20, 8)
    refiner = build(JobSpec.create(inputs=["in"], output="out", refiner=name))
    mask, marginal = refiner.refine(np.zeros((10, 20, 3), np.uint8) if refiner.needs_image else None, scores)
    assert (mask == 7).all()
    assert (marginal == 1).all()


@pytest.mark.parametrize("prune", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("photograph", [data.astronaut, data.coffee, data.chelsea])
def test_coarse_inference_gives_the_mask_of_the_long_way(photograph: object, prune: float) -> None:
    """The long way: full-size scores in float32, every marginal, then the highest; pruned again or not."""
    image = np.array(photograph()[:300, :400])  # type: ignore[operator]
    scores = scores_of(image, prune=prune)
    params = CRFParams(prune=prune)
    mask, marginal = DenseCRFRefiner(params, "native").refine(image, scores)
    for crf in (DenseCRF(params), DenseCRF(CRFParams(prune=0))):
        long_mask, long_marginal = pick(crf.refine(image, logits=upsample(scores)), scores.class_ids)
        assert (mask == long_mask).mean() >= 0.9999
        assert np.abs(marginal - long_marginal).mean() <= 1e-4
    assert (mask != NoRefiner().refine(None, scores)[0]).mean() > 0.01, "there must be something to do"


def test_the_engines_agree_on_the_mask() -> None:
    image = np.array(data.coffee()[:200, :260])
    scores = scores_of(image)
    native, of_native = DenseCRFRefiner(CRFParams(), "native").refine(image, scores)
    for engine in ("pydensecrf", "torch"):
        mask, marginal = DenseCRFRefiner(CRFParams(), engine).refine(image, scores)
        assert (mask == native).mean() >= 0.999
        np.testing.assert_allclose(marginal, of_native, atol=2e-3)


def test_an_image_of_another_size_is_refused() -> None:
    image = np.array(data.coffee()[:64, :80])
    with pytest.raises(ValueError, match=r"image has shape \(63, 80, 3\) but size is \(64, 80\)"):
        DenseCRFRefiner(CRFParams(), "native").refine(image[:63], scores_of(image))


def test_upsampling_hits_the_cells_and_stays_within_them() -> None:
    values = np.array([[[0.0, 10.0], [20.0, 30.0]]], np.float16)
    up = upsample(Scores(values, np.zeros(1, np.int16), 6, 6, 3))
    np.testing.assert_allclose(up[0, 1::3, 1::3], values[0], atol=1e-6)
    np.testing.assert_allclose(up[0, 0], [0, 0, 10 / 3, 20 / 3, 10, 10], atol=1e-5)
    assert (up.min(), up.max()) == (0, 30)
    np.testing.assert_allclose(softmax(np.concatenate([up, -up])).sum(0), 1, atol=1e-6)
