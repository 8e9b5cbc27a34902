"""pydensecrf's interface, call by call against pydensecrf, and its published examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pydensecrf.densecrf as reference
import pydensecrf.utils as reference_utils
import pytest
from PIL import Image

from segbatch.crf import compat
from tests.crf.inputs import photograph, random_image, smooth_logits

EXAMPLES = Path(__file__).parents[3] / "shared" / "data" / "densecrf_examples"
HEIGHT, WIDTH, LABELS = 36, 45, 4
IMAGE = photograph("coffee", HEIGHT, WIDTH)
UNARY = -smooth_logits(LABELS, HEIGHT, WIDTH).reshape(LABELS, -1)
NAMES = ("NO_NORMALIZATION", "NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC")
MODULES = pytest.mark.parametrize("dcrf", [compat, reference], ids=["segbatch", "pydensecrf"])


def both(script: Callable[[ModuleType], np.ndarray], atol: float = 2e-3) -> np.ndarray:
    """The result of a script with our module, after comparing it with that of the reference."""
    ours, theirs = script(compat), script(reference)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=atol)
    return ours


def test_the_constants_are_the_references() -> None:
    for name in (*NAMES, "CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL"):
        assert getattr(compat, name) == getattr(reference, name)
        assert getattr(compat, name).name == name


@pytest.mark.parametrize("normalization", NAMES)
@pytest.mark.parametrize("kernel", ["CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL"])
def test_a_2d_model(normalization: str, kernel: str) -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        options = {"kernel": getattr(dcrf, kernel), "normalization": getattr(dcrf, normalization)}
        weight = 0.01 if normalization == "NO_NORMALIZATION" else 1
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        d.addPairwiseGaussian(sxy=(3, 4), compat=3 * weight, **options)
        d.addPairwiseBilateral(sxy=(40, 60), srgb=(13, 14, 15), rgbim=IMAGE.copy(), compat=10 * weight, **options)
        q = d.inference(5)
        assert np.argmax(q, axis=0).shape == (HEIGHT * WIDTH,)
        return np.array(q)

    q = both(script)
    assert (q.argmax(0) != UNARY.argmin(0)).mean() > 0.02, "there must be something to do"


def test_single_numbers_defaults_and_positions() -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        d.addPairwiseGaussian(3, 2)
        d.addPairwiseBilateral(40, 13, IMAGE.copy(), np.float32(4))
        return np.array(d.inference(3))

    both(script)


@pytest.mark.parametrize("shape", [(LABELS,), (LABELS, LABELS)])
def test_compatibilities_of_labels(shape: tuple[int, ...]) -> None:
    """An asymmetric matrix acts by its symmetric part, as it does there."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 2 - 1

    def script(dcrf: ModuleType) -> np.ndarray:
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        d.addPairwiseBilateral(40, 13, IMAGE.copy(), values.copy())
        return np.array(d.inference(3))

    both(script)


def test_features_of_ones_own() -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        d = dcrf.DenseCRF(HEIGHT * WIDTH, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        d.addPairwiseEnergy(compat.create_pairwise_gaussian((3, 3), (HEIGHT, WIDTH)), compat=3)
        features = compat.create_pairwise_bilateral((30, 30), (13, 13, 13), IMAGE, chdim=2)
        d.addPairwiseEnergy(features, 10, dcrf.FULL_KERNEL, dcrf.NORMALIZE_AFTER)
        return np.array(d.inference(5))

    both(script)


def test_two_images_in_one_model() -> None:
    other = random_image(HEIGHT, WIDTH)

    def script(dcrf: ModuleType) -> np.ndarray:
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        for image in (IMAGE, other, IMAGE):
            d.addPairwiseBilateral(40, 13, image.copy(), 2)
        return np.array(d.inference(3))

    both(script)


def test_steps_and_divergence() -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        d.addPairwiseGaussian(3, 3)
        d.addPairwiseBilateral(40, 13, IMAGE.copy(), 10)
        q, tmp1, tmp2 = d.startInference()
        record = [np.array(q)]
        divergences = []
        for _ in range(4):
            divergences.append(d.klDivergence(q))
            d.stepInference(q, tmp1, tmp2)
            record.append(np.array(q))
        np.testing.assert_allclose(record[-1], np.array(d.inference(4)), atol=1e-5)
        return np.concatenate([np.ravel(record), np.array(divergences) / abs(divergences[0])])

    both(script)


def test_a_model_may_change_between_runs() -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(UNARY.copy())
        d.addPairwiseGaussian(3, 3)
        q, tmp1, tmp2 = d.startInference()
        d.addPairwiseBilateral(40, 13, IMAGE.copy(), 10)
        d.stepInference(q, tmp1, tmp2)
        d.setUnaryEnergy(UNARY[::-1].copy())
        d.stepInference(q, tmp1, tmp2)
        return np.array(q)

    both(script)


def test_what_was_handed_in_may_change_afterwards() -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        unary, image, features = UNARY.copy(), IMAGE.copy(), np.ones((2, HEIGHT * WIDTH), np.float32)
        d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        d.setUnaryEnergy(unary)
        d.addPairwiseBilateral(40, 13, image, 10)
        d.addPairwiseEnergy(features, 1)
        for array in (unary, image, features):
            array[:] = 7
        return np.array(d.inference(3))

    both(script)


def test_logistic_and_constant_unaries() -> None:
    random = np.random.default_rng(0)
    weights, features = (random.normal(size=s).astype(np.float32) for s in ((LABELS, 5), (5, HEIGHT * WIDTH)))

    def script(dcrf: ModuleType) -> np.ndarray:
        results = []
        for unary in (dcrf.LogisticUnary(weights.copy(), features.copy()), dcrf.ConstUnary(UNARY.copy())):
            d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
            d.setUnary(unary)
            d.addPairwiseGaussian(3, 3)
            results.append(np.array(d.inference(2)))
        return np.stack(results)

    both(script)


def test_without_unary_or_kernels() -> None:
    def script(dcrf: ModuleType) -> np.ndarray:
        return np.array(dcrf.DenseCRF2D(5, 4, 3).inference(2))

    both(script)


@MODULES
@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.setUnaryEnergy(UNARY[:, 1:].copy()),
        lambda d: d.setUnaryEnergy(UNARY[1:].copy()),
        lambda d: d.setUnaryEnergy(UNARY.astype(np.float64)),
        lambda d: d.setUnaryEnergy(UNARY.reshape(LABELS, HEIGHT, WIDTH)),
        lambda d: d.addPairwiseEnergy(np.zeros((2, 7), np.float32), 3),
        lambda d: d.addPairwiseBilateral(3, 3, IMAGE[1:].copy(), 3),
        lambda d: d.addPairwiseBilateral(3, 3, IMAGE.astype(np.float32), 3),
        lambda d: d.addPairwiseBilateral(3, 3, np.zeros((HEIGHT, WIDTH, 4), np.uint8), 3),
        lambda d: d.addPairwiseGaussian(3, np.zeros((2, 2, 2), np.float32)),
    ],
)
def test_what_the_reference_refuses_is_refused_by_the_same_error(dcrf: ModuleType, call: Callable) -> None:
    with pytest.raises(ValueError):
        call(dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.setUnaryEnergy(np.full_like(UNARY, np.nan)), "variable 0 is NaN"),
        (lambda d: d.addPairwiseGaussian(0, 3), "give one finite standard deviation above 0"),
        (lambda d: d.addPairwiseGaussian(3, np.zeros(3, np.float32)), r"compat has shape \(3,\)"),
        (lambda d: d.stepInference(np.zeros((1, 2), np.float32), None, None), "Bad shape for Q"),
        (lambda d: d.inference(-1), "iterations must be 0 or more"),
        (lambda d: compat.DenseCRF2D(0, 4, 2), "at least one variable"),
        (lambda d: compat.LogisticUnary(np.ones((2, 3), np.float32), np.ones((4, 5), np.float32)), "L has 3 features"),
    ],
)
def test_what_the_reference_crashes_on_is_refused(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(compat.DenseCRF2D(WIDTH, HEIGHT, LABELS))


# --- pydensecrf.utils ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_unsure", [True, False])
def test_unary_from_labels(zero_unsure: bool) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 6))
    ours = compat.unary_from_labels(labels, 4, 0.7, zero_unsure)
    np.testing.assert_array_equal(ours, reference_utils.unary_from_labels(labels, 4, 0.7, zero_unsure))


@pytest.mark.parametrize("arguments", [{}, {"scale": 0.6}, {"clip": 0.01}, {"scale": 0.5, "clip": None}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unary_from_softmax(arguments: dict[str, float], dtype: type) -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(3), (5, 6)).transpose(2, 0, 1).astype(dtype)
    ours = compat.unary_from_softmax(probs, **arguments)
    np.testing.assert_array_equal(ours, reference_utils.unary_from_softmax(probs, **arguments))
    assert (ours.dtype, ours.flags.c_contiguous) == (np.float32, True)


@pytest.mark.parametrize(("sdims", "shape"), [((3,), (7,)), ((3, 4), (5, 6)), ((1.5, 2, 3), (3, 4, 5))])
def test_create_pairwise_gaussian(sdims: tuple[float, ...], shape: tuple[int, ...]) -> None:
    ours = compat.create_pairwise_gaussian(sdims, shape)
    np.testing.assert_array_equal(ours, reference_utils.create_pairwise_gaussian(sdims, shape))


@pytest.mark.parametrize(
    ("image", "schan", "chdim"),
    [
        (IMAGE, (13, 14, 15), 2),
        (IMAGE, 20, 2),
        (np.moveaxis(IMAGE, 2, 0), (13, 14, 15), 0),
        (IMAGE[..., 0], (20,), -1),
        (IMAGE[..., 0].astype(np.float64), 0.01, -1),
    ],
)
def test_create_pairwise_bilateral(image: np.ndarray, schan: float, chdim: int) -> None:
    ours = compat.create_pairwise_bilateral((30, 40), schan, image, chdim)
    np.testing.assert_array_equal(ours, reference_utils.create_pairwise_bilateral((30, 40), schan, image, chdim))


def test_the_old_names_warn() -> None:
    labels, probs = np.ones((2, 3), int), np.full((2, 3), 0.5)
    with pytest.warns(DeprecationWarning, match="use unary_from_labels"):
        old = compat.compute_unary(labels, 2)
    np.testing.assert_array_equal(old, compat.unary_from_labels(labels, 2, 0.5))
    with pytest.warns(DeprecationWarning, match="use unary_from_softmax"):
        old = compat.softmax_to_unary(probs)
    np.testing.assert_array_equal(old, compat.unary_from_softmax(probs, clip=None))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compat.unary_from_labels(np.array([[9]]), 3, 0.7), "labels range from 9 to 9; .* give 0 to 3"),
        (lambda: compat.unary_from_labels(np.array([[-1]]), 3, 0.7, False), "give 0 to 2"),
        (lambda: compat.unary_from_labels(np.array([[0]]), 1, 0.7), "n_labels is 1"),
        (lambda: compat.unary_from_labels(np.array([[0]]), 2, 1.5), "gt_prob is 1.5"),
        (lambda: compat.unary_from_softmax(np.ones((2, 3)), scale=0), "scale is 0"),
    ],
)
def test_bad_arguments_are_named(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- the published examples ----------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs pydensecrf's examples beside the checkout")
@pytest.mark.parametrize("example", ["1", "2", "3"])
def test_the_published_examples_come_out(example: str) -> None:
    """examples/inference.py of pydensecrf: annotation in, five steps, the map in the annotation's colors."""
    image = np.array(Image.open(EXAMPLES / f"im{example}.png").convert("RGB"))
    annotation = np.array(Image.open(EXAMPLES / f"anno{example}.png").convert("RGB")).astype(np.uint32)
    published = np.array(Image.open(EXAMPLES / f"out{example}.png").convert("RGB"))
    codes = annotation[:, :, 0] + (annotation[:, :, 1] << 8) + (annotation[:, :, 2] << 16)
    colors, labels = np.unique(codes, return_inverse=True)
    unknown = 0 in colors
    colors = colors[1:] if unknown else colors

    d = compat.DenseCRF(image.shape[1] * image.shape[0], len(colors))
    d.setUnaryEnergy(compat.unary_from_labels(labels, len(colors), gt_prob=0.7, zero_unsure=unknown))
    features = compat.create_pairwise_gaussian(sdims=(3, 3), shape=image.shape[:2])
    d.addPairwiseEnergy(features, 3, compat.DIAG_KERNEL, compat.NORMALIZE_SYMMETRIC)
    features = compat.create_pairwise_bilateral(sdims=(80, 80), schan=(13, 13, 13), img=image, chdim=2)
    d.addPairwiseEnergy(features, 10, compat.DIAG_KERNEL, compat.NORMALIZE_SYMMETRIC)
    q, tmp1, tmp2 = d.startInference()
    for _ in range(5):
        d.stepInference(q, tmp1, tmp2)
    code = colors[np.argmax(q, axis=0)].reshape(image.shape[:2])
    ours = np.stack([code & 255, code >> 8 & 255, code >> 16 & 255], -1)
    assert (ours != published).any(-1).sum() <= 5
