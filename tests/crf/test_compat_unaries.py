"""Impossible labels and counts that are not ints, in pydensecrf's interface and against pydensecrf."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pydensecrf.densecrf as reference
import pydensecrf.utils as reference_utils
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from segbatch.crf import compat
from tests.crf.inputs import random_image

HEIGHT, WIDTH = 12, 17
IMAGE = random_image(HEIGHT, WIDTH)


def probabilities(labels: int) -> np.ndarray:
    """Float32 (labels, H, W) with exact zeros, and a corner where one label is certain."""
    rng = np.random.default_rng(labels)
    values = rng.random((labels, HEIGHT, WIDTH)).astype(np.float32)
    values[1:][values[1:] < 0.5] = 0
    values[:, :4, :4] = np.eye(labels, dtype=np.float32)[1][:, None, None]
    return values / values.sum(0)


def unary(labels: int) -> np.ndarray:
    return compat.unary_from_softmax(probabilities(labels), clip=None)


def model(dcrf: ModuleType, energies: np.ndarray, weights: np.ndarray | float = 3.0) -> compat.DenseCRF2D:
    d = dcrf.DenseCRF2D(WIDTH, HEIGHT, len(energies))
    d.setUnaryEnergy(energies)
    d.addPairwiseGaussian(sxy=3, compat=weights)
    d.addPairwiseBilateral(sxy=20, srgb=13, rgbim=IMAGE, compat=weights)
    return d


# --- impossible labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [2, 4, 9, 21])
@pytest.mark.parametrize("form", ["potts", "vector", "matrix"])
def test_an_impossible_label_has_the_marginal_0(labels: int, form: str) -> None:
    weights = {"potts": 3.0, "vector": np.full(labels, -2.0), "matrix": -2 * np.eye(labels)}[form]
    weights = weights if form == "potts" else np.asarray(weights, np.float32)
    energies = unary(labels)
    ours, theirs = (np.array(model(dcrf, energies, weights).inference(5)) for dcrf in (compat, reference))
    assert_allclose(ours, theirs, atol=1e-3)
    assert (ours[np.isinf(energies)] == 0).all()
    assert_allclose(ours.sum(0), 1, atol=1e-5)


def test_steps_over_impossible_labels() -> None:
    def steps(dcrf: ModuleType) -> tuple[np.ndarray, float]:
        d = dcrf.DenseCRF(HEIGHT * WIDTH, 4)
        d.setUnary(dcrf.ConstUnary(unary(4)))
        d.addPairwiseEnergy(compat.create_pairwise_gaussian((3, 3), (HEIGHT, WIDTH)), 3)
        q, tmp1, tmp2 = d.startInference()
        record = [np.array(q)]
        for _ in range(3):
            d.stepInference(q, tmp1, tmp2)
            record.append(np.array(q))
        return np.stack(record), d.klDivergence(q)

    (ours, divergence), (theirs, _) = steps(compat), steps(reference)
    assert_allclose(ours, theirs, atol=1e-3)
    assert np.isfinite(divergence)


def test_the_divergence_counts_only_what_is_possible() -> None:
    """A finite energy that no marginal survives gives the same number as an infinite one."""
    energies = unary(4)
    certain, nearly = (model(compat, e) for e in (energies, np.where(np.isinf(energies), np.float32(1e6), energies)))
    q = certain.inference(3)
    assert certain.klDivergence(q) == pytest.approx(nearly.klDivergence(q))
    assert certain.klDivergence(np.full_like(q, 0.25)) == np.inf


@pytest.mark.parametrize(
    "build",
    [
        lambda utils: utils.unary_from_softmax(probabilities(4), clip=None),
        lambda utils: utils.unary_from_softmax(probabilities(4).astype(np.float16), clip=None),
        lambda utils: utils.unary_from_softmax(probabilities(4).astype(np.float64), scale=1, clip=None),
        lambda utils: utils.unary_from_softmax(probabilities(4), clip=0),
        lambda utils: utils.softmax_to_unary(probabilities(4)),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:.*deprecated:DeprecationWarning")
def test_probabilities_of_0_become_infinite_energies(build: Callable[[ModuleType], np.ndarray]) -> None:
    ours = build(compat)
    assert np.isinf(ours).any()
    assert_array_equal(ours, build(reference_utils))
    assert_allclose(model(compat, ours).inference(5), np.array(model(reference, ours).inference(5)), atol=1e-3)


@pytest.mark.parametrize("unsure", [True, False])
def test_a_hard_annotation_stays_as_it_is(unsure: bool) -> None:
    """pydensecrf refuses a probability of 1; its formula gives these energies."""
    labels = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH))
    energies = compat.unary_from_labels(labels, 4, gt_prob=1.0, zero_unsure=unsure)
    marginals = model(compat, energies).inference(5)
    known = labels.ravel() > 0 if unsure else np.full(labels.size, True)
    assert_array_equal(marginals.argmax(0)[known], (labels.ravel() - unsure)[known])
    assert_allclose(marginals, np.array(model(reference, energies).inference(5)), atol=1e-3)


@pytest.mark.parametrize(
    ("values", "problem"), [([np.nan, 0], "NaN"), ([-np.inf, 0], "-inf"), ([np.inf, np.inf], "infinite energies only")]
)
def test_a_variable_without_an_answer_is_named(values: list[float], problem: str) -> None:
    energies = np.zeros((2, HEIGHT * WIDTH), np.float32)
    energies[:, 7] = values
    with pytest.raises(ValueError, match=f"unary energy of variable 7 is {problem}"):
        model(compat, energies)


# --- counts --------------------------------------------------------------------------------------------------

FIVES = [5.0, 5.9, np.float32(5), np.float64(5), np.int64(5), np.uint8(5), np.array(5), np.array(5.0)]


@pytest.mark.parametrize("five", FIVES, ids=repr)
def test_steps_are_counted_as_c_counts(five: object) -> None:
    energies = unary(3)
    assert_array_equal(model(compat, energies).inference(five), model(compat, energies).inference(5))
    model(reference, energies).inference(five)


@pytest.mark.parametrize("one", [True, np.bool_(True), 1.5], ids=repr)
def test_one_step_may_be_a_truth_value(one: object) -> None:
    assert_array_equal(model(compat, unary(3)).inference(one), model(compat, unary(3)).inference(1))


@pytest.mark.parametrize("size", [(17.0, 12.0, 3), (17.5, 12, np.float32(3)), (np.array(17), np.int64(12), 3.0)])
def test_sizes_are_counted_as_c_counts(size: tuple[float, float, float]) -> None:
    for dcrf in (compat, reference):
        dcrf.DenseCRF2D(*size).setUnaryEnergy(unary(3))
        dcrf.DenseCRF(size[0] // 1 * size[1], size[2]).setUnaryEnergy(unary(3))


@pytest.mark.parametrize("count", ["5", None, np.nan, np.inf, np.array([5, 6]), 2**40, 5j])
def test_what_is_not_a_count_is_named(count: object) -> None:
    d = model(compat, unary(3))
    for call, name in (
        (d.inference, "niter"),
        (lambda n: compat.DenseCRF(n, 3), "nvar"),
        (lambda n: compat.DenseCRF2D(n, 12, 3), "w"),
        (lambda n: compat.DenseCRF2D(17, n, 3), "h"),
        (lambda n: compat.DenseCRF2D(17, 12, n), "nlabels"),
    ):
        with pytest.raises(TypeError, match=f"{name} is .*; give a whole number"):
            call(count)
