"""Random models over random images: never a crash, always marginals, and the reference's where it has an answer.

A few hundred in a test run; ``SEGBATCH_FUZZ_EXAMPLES=10000`` tries more.
"""

from __future__ import annotations

import os

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbatch.crf import Bilateral, CRFParams, DenseCRF, Features, Gaussian, Kernel, _core
from segbatch.crf.native_engine import NativeEngine
from segbatch.crf.pydensecrf_engine import PydensecrfEngine
from tests.crf.inputs import NORMALIZATIONS

EXAMPLES = int(os.environ.get("SEGBATCH_FUZZ_EXAMPLES", "250"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000
)

SIGMAS = st.one_of(st.floats(0.5, 200), st.sampled_from([0.01, 0.1, 1.0, 1e4, 1e12]))


@st.composite
def models(draw: st.DrawFn, wild: bool) -> tuple[np.ndarray, np.ndarray, list[Kernel], int]:
    """Image, unary, kernels and iterations; not ``wild``: of a kind that the reference does not crash on.

    Its lattice is built four points at a time, and fills up the last four with points at the origin, whose
    vertices then take part: only at a multiple of four is it the lattice of the image.
    """
    labels = draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 65, 300]) if wild else st.nothing()))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24)) if wild else 4 * draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = random.integers(0, draw(st.sampled_from([1, 2, 40, 256])), (height, width, 3)).astype(np.uint8)
    scale = draw(st.sampled_from([0.0, 1.0, 5.0, 100.0, *([1e10, 3e38] if wild else [])]))
    unary = (random.uniform(-1, 1, (labels, height, width)) * scale).astype(np.float32)
    kernels = [draw(_kernels(labels, height, width, random, wild)) for _ in range(draw(st.integers(0, 3)))]
    return image, unary, kernels, draw(st.integers(0, 6))


@st.composite
def _kernels(draw: st.DrawFn, labels: int, height: int, width: int, random: np.random.Generator, wild: bool) -> Kernel:
    form = draw(st.sampled_from(["potts", "diagonal", "matrix"]))
    weight = draw(st.floats(-5, 5))
    compat: float | np.ndarray = weight
    if form == "diagonal":
        compat = (weight * random.normal(size=labels)).astype(np.float32)
    elif form == "matrix":
        compat = (weight * random.normal(size=(labels, labels))).astype(np.float32)
        compat = (compat + compat.T) / 2
    normalization = draw(st.sampled_from(NORMALIZATIONS if wild else NORMALIZATIONS[1:]))
    kind = draw(st.sampled_from(["gaussian", "bilateral", "features"]))
    sigma = SIGMAS if wild else st.floats(0.5, 200)
    if kind == "gaussian":
        return Gaussian((draw(sigma), draw(sigma)), compat, normalization)
    if kind == "bilateral":
        return Bilateral((draw(sigma), draw(sigma)), (draw(sigma), draw(sigma), draw(sigma)), compat, normalization)
    dims = draw(st.integers(1, 12))
    spread = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, *([1e3, 1e9, 3e38] if wild else [])]))
    values = (random.uniform(-1, 1, (dims, height * width)) * spread).astype(np.float32)
    return Features(values, compat, normalization)


@FUZZ
@given(models(wild=True), st.sampled_from(_core.isa_names()))
def test_any_model_gives_marginals_or_a_reason(
    model: tuple[np.ndarray, np.ndarray, list[Kernel], int], isa: str
) -> None:
    image, unary, kernels, iterations = model
    try:
        q = NativeEngine(isa).infer(image, unary, kernels, iterations)
    except ValueError as error:
        assert "raise its theta" in str(error)  # noqa: PT017
        return
    assert np.isfinite(q).all()
    assert (q >= 0).all()
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-4)


@FUZZ
@given(models(wild=False))
def test_one_step_of_any_sane_model_is_the_references(
    model: tuple[np.ndarray, np.ndarray, list[Kernel], int],
) -> None:
    """One step: at random weights of either sign the iteration need not converge, and would magnify rounding."""
    image, unary, kernels, _ = model
    q = NativeEngine().infer(image, unary, kernels, 1)
    assert np.abs(q - PydensecrfEngine().infer(image, unary, kernels, 1)).max() <= 5e-3


@FUZZ
@given(models(wild=True), st.floats(0, 0.9), st.booleans(), st.integers(1, 3))
def test_pruning_and_ignoring_leave_marginals(
    model: tuple[np.ndarray, np.ndarray, list[Kernel], int], prune: float, masked: bool, threads: int
) -> None:
    image, unary, kernels, iterations = model
    ignore = np.random.default_rng(0).random(unary.shape[1:]) < 0.3 if masked else None
    crf = DenseCRF(CRFParams(iterations=iterations, prune=prune), threads=threads, kernels=kernels)
    try:
        results = crf.refine_batch([image] * 3, unary=[unary] * 3, ignore=[ignore] * 3)
    except ValueError as error:
        assert "raise its theta" in str(error)  # noqa: PT017
        return
    for q in results:
        np.testing.assert_allclose(q.sum(0), 1, atol=1e-4)
        np.testing.assert_array_equal(q, results[0])


@FUZZ
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 33), st.integers(0, 2**32 - 1))
def test_coarse_scores_of_any_size(labels: int, height: int, width: int, stride: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    logits = random.normal(size=(labels, -(-height // stride), -(-width // stride))).astype(np.float32) * 3
    winner, marginal = DenseCRF(CRFParams(iterations=2)).refine_coarse(image, logits, (height, width), stride)
    assert winner.shape == marginal.shape == (height, width)
    assert ((winner >= 0) & (winner < labels)).all()
    assert ((marginal > 0) & (marginal <= 1.0001)).all()
