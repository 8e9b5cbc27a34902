"""The native engine: the reference's lattice, the exact kernel, every instruction set, any number of threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from segbatch.crf import Bilateral, CRFParams, DenseCRF, Features, Gaussian, Kernel, _core
from segbatch.crf.native_engine import NativeEngine, native_kernels
from segbatch.crf.pydensecrf_engine import PydensecrfEngine
from tests.crf.inputs import NORMALIZATIONS, exact_mean_field, photograph, random_image, smooth_logits


def softmax(logits: np.ndarray) -> np.ndarray:
    q = np.exp(logits - logits.max(0))
    return q / q.sum(0)


# --- against the exact kernel --------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "labels", "size"),
    [
        (10.0, 20.0, 3.0, 3, (24, 22)),
        (5.0, 40.0, 2.0, 2, (20, 24)),
        (30.0, 60.0, 1.0, 9, (17, 23)),
        (4.0, 13.0, 6.0, 21, (24, 24)),
        (80.0, 13.0, 3.0, 17, (24, 19)),
    ],
)
def test_near_all_pairs_and_no_further_than_pydensecrf(
    alpha: float, beta: float, gamma: float, labels: int, size: tuple[int, int], normalization: str
) -> None:
    image, logits = photograph("coffee", *size), smooth_logits(labels, *size)
    # The lattice's kernel is not as high as the Gaussian's, which only a norm makes up for.
    weight = 0.01 if normalization == "none" else 1.0
    kernels = CRFParams(2.0 * weight, alpha, beta, 2.0 * weight, gamma, 5, normalization, prune=0).kernels()
    exact = exact_mean_field(image, logits, kernels, 5)
    ours = np.abs(NativeEngine().infer(image, -logits, kernels, 5) - exact)
    reference = np.abs(PydensecrfEngine().infer(image, -logits, kernels, 5) - exact)
    assert ours.mean() <= reference.mean() + 1e-5
    assert ours.max() <= reference.max() + 1e-3
    if normalization != "none":
        assert ours.mean() < 0.75 * np.abs(softmax(logits) - exact).mean()


@pytest.mark.parametrize("labels", [2, 21])
def test_far_iterations_stay_near_all_pairs(labels: int) -> None:
    """Rounding of one step must not add up over fifty."""
    image, logits = photograph("astronaut", 20, 24), smooth_logits(labels, 20, 24)
    kernels = CRFParams(2.0, 10.0, 20.0, 2.0).kernels()
    exact = exact_mean_field(image, logits, kernels, 50)
    ours = np.abs(NativeEngine().infer(image, -logits, kernels, 50) - exact)
    reference = np.abs(PydensecrfEngine().infer(image, -logits, kernels, 50) - exact)
    assert ours.mean() <= reference.mean() + 1e-4


# --- against the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photo", "alpha", "beta", "labels", "normalization"),
    [
        ("coffee", 67.0, 3.0, 4, "symmetric"),
        ("astronaut", 67.0, 3.0, 21, "symmetric"),
        ("coffee", 80.0, 13.0, 21, "after"),
        ("astronaut", 121.0, 5.0, 16, "before"),
        ("coffee", 50.0, 3.0, 8, "none"),
        ("coffee", 50.0, 3.0, 12, "symmetric"),  # where small errors grow the most from step to step
        ("coffee", 50.0, 3.0, 21, "symmetric"),
        ("astronaut", 160.0, 3.0, 40, "after"),
    ],
)
def test_equals_pydensecrf_at_full_size(photo: str, alpha: float, beta: float, labels: int, normalization: str) -> None:
    image, logits = photograph(photo, 375, 500), smooth_logits(labels, 375, 500)
    assert image.shape == (375, 500, 3)
    weight = 0.01 if normalization == "none" else 1.0
    kernels = CRFParams(4.0 * weight, alpha, beta, 3.0 * weight, 3.0, 10, normalization).kernels()
    ours = NativeEngine().infer(image, -logits, kernels, 10)
    reference = PydensecrfEngine().infer(image, -logits, kernels, 10)
    assert (reference.argmax(0) != logits.argmax(0)).mean() > 0.01, "the reference must have something to do"
    assert np.abs(ours - reference).max() <= 5e-4
    assert (ours.argmax(0) == reference.argmax(0)).mean() >= 0.9999


@pytest.mark.parametrize(("alpha", "beta"), [(67.0, 3.0), (80.0, 13.0)])
def test_pruned_equals_unpruned_pydensecrf(alpha: float, beta: float) -> None:
    """Scores as a network's: three or four labels of 21 with much to say, the others with little."""
    image = photograph("astronaut", 375, 500)
    logits = smooth_logits(21, 375, 500, scale=1.0)
    logits[[0, 7, 12, 15]] += smooth_logits(4, 375, 500, seed=1, scale=2.0) + 12
    params = CRFParams(4.0, alpha, beta)
    pruned = DenseCRF(params).refine(image, logits=logits)
    reference = PydensecrfEngine().infer(image, -logits, params.kernels(), 10)
    left = np.flatnonzero(pruned.any(axis=(1, 2)))
    assert len(left) <= 6
    assert (pruned.argmax(0) == reference.argmax(0)).mean() >= 0.999
    np.testing.assert_allclose(pruned.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 6, 9])
def test_equals_pydensecrf_on_features_of_any_dimension(dims: int) -> None:
    logits = smooth_logits(4, 30, 40)
    values = np.cumsum(np.random.default_rng(dims).normal(size=(dims, 30 * 40)), 1).astype(np.float32) / 3
    kernels: list[Kernel] = [Features(values, 3.0, "symmetric"), Gaussian((2.0, 5.0), 1.0, "after")]
    ours = NativeEngine().infer(None, -logits, kernels, 10)
    reference = PydensecrfEngine().infer(None, -logits, kernels, 10)
    assert np.abs(ours - reference).max() <= 2e-3
    assert np.abs(ours - softmax(logits)).max() > 0.1


@pytest.mark.parametrize("labels", [3, 8, 13, 21, 30, 70])
def test_equals_pydensecrf_with_diagonal_and_matrix_compatibility(labels: int) -> None:
    image, logits = photograph("astronaut", 50, 63), smooth_logits(labels, 50, 63)
    random = np.random.default_rng(3)
    matrix = random.normal(size=(labels, labels)).astype(np.float32)
    kernels = [
        Bilateral((40.0, 60.0), (8.0, 9.0, 10.0), matrix + matrix.T - 3 * np.eye(labels, dtype=np.float32), "after"),
        Gaussian(3.0, -random.uniform(1, 4, size=labels).astype(np.float32), "symmetric"),
    ]
    ours = NativeEngine().infer(image, -logits, kernels, 5)
    reference = PydensecrfEngine().infer(image, -logits, kernels, 5)
    assert np.abs(ours - reference).max() <= 2e-3


def test_an_asymmetric_compatibility_acts_as_it_stands() -> None:
    """Label 0 pays for neighbors of label 1, not the other way round."""
    compat = np.zeros((2, 2), np.float32)
    compat[0, 1] = 5.0
    q = NativeEngine().infer(None, np.zeros((2, 12, 12), np.float32), [Gaussian(3.0, compat, "after")], 5)
    assert (q[1] > 0.9).all()


# --- the same everywhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [2, 7, 12, 21, 32, 50])
def test_every_instruction_set_gives_the_same(labels: int) -> None:
    image, logits = photograph("coffee", 60, 77), smooth_logits(labels, 60, 77)
    kernels = CRFParams(4.0, 67.0, 3.0).kernels()
    names = _core.isa_names()
    assert names[-1] == "baseline"
    results = []
    for name in names:
        _core.clear_cache()
        results.append(NativeEngine(name).infer(image, -logits, kernels, 10))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-4)
    counts = {_core.build_lattice(image, 60, 77, native_kernels(kernels)[0], name) for name in names}
    assert len(counts) == 1


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"isa is 'sse9'; give one of .*baseline"):
        NativeEngine("sse9").infer(None, np.zeros((2, 3, 3), np.float32), [], 1)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    sizes = [(40, 50), (33, 61), (1, 30), (64, 20), (40, 50), (25, 25), (90, 70)]
    labels = [4, 2, 9, 21, 3, 16, 40]
    images = [random_image(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    unaries = [-smooth_logits(k, h, w, seed) for seed, ((h, w), k) in enumerate(zip(sizes, labels, strict=True))]
    kernels = CRFParams(theta_beta=10.0).kernels()
    alone = [NativeEngine().infer(i, u, kernels, 8) for i, u in zip(images, unaries, strict=True)]
    for threads in (1, 2, 3, 16):
        _core.clear_cache()
        together = NativeEngine().infer_batch(images, unaries, kernels, 8, threads)
        for one, of_many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(of_many, one)


def test_python_threads_may_share_an_engine() -> None:
    image, logits = random_image(50, 60), smooth_logits(5, 50, 60)
    crf = DenseCRF(CRFParams(theta_beta=10.0))
    expected = crf.refine(image, logits=logits)
    results: list[np.ndarray] = []
    workers = [
        threading.Thread(target=lambda: results.extend(crf.refine(image, logits=logits) for _ in range(5)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 20
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_a_workspace_that_was_used_before_leaves_no_trace() -> None:
    """Buffers are kept from image to image; what is left in them must not be seen."""
    kernels = CRFParams(theta_beta=10.0).kernels()
    _core.clear_cache()
    small = (random_image(13, 17, 1), -smooth_logits(3, 13, 17))
    first = NativeEngine().infer(*small, kernels, 5)
    for labels, size in ((40, (70, 80)), (2, (90, 30)), (21, (20, 21))):
        NativeEngine().infer(random_image(*size), -smooth_logits(labels, *size), kernels, 2)
    np.testing.assert_array_equal(NativeEngine().infer(*small, kernels, 5), first)


def test_a_result_of_many_labels_lends_its_memory_to_its_own_inference_alone() -> None:
    size, kernels = (330, 340), CRFParams(theta_beta=10.0).kernels()
    image, unary = photograph("coffee", *size), -smooth_logits(21, *size)
    assert unary.nbytes > 2**23  # what is worth lending
    _core.clear_cache()
    first = NativeEngine().infer(image, unary, kernels, 2)
    assert np.abs(first - PydensecrfEngine().infer(image, unary, kernels, 2)).max() <= 2e-3
    kept = first.copy()
    far = Features(np.linspace(0, 1e9, image[..., 0].size, dtype=np.float32).reshape(1, *size))
    with pytest.raises(ValueError, match="standard deviations apart"):
        NativeEngine().infer(image, unary, [far, *kernels], 2)
    again = NativeEngine().infer_batch([image[::-1], image], [unary, unary], kernels, 2, 2)[1]
    np.testing.assert_array_equal(again, kept)
    np.testing.assert_array_equal(first, kept)


# --- kept lattices -------------------------------------------------------------------------------------------


def test_spatial_lattices_are_kept_and_not_without_end() -> None:
    _core.clear_cache()
    before = _core.cache_info()
    unary = -smooth_logits(2, 20, 24)
    for _ in range(3):
        NativeEngine().infer(None, unary, [Gaussian(3.0)], 2)
    info = _core.cache_info()
    assert (info["lattices"], info["hits"] - before["hits"], info["misses"] - before["misses"]) == (1, 2, 1)
    for width in range(1, 40):
        NativeEngine().infer(None, np.zeros((2, 4, width), np.float32), [Gaussian(2.0)], 1)
    assert _core.cache_info()["lattices"] <= 16
    _core.clear_cache()
    assert _core.cache_info()["lattices"] == _core.cache_info()["lattice_bytes"] == 0


# --- edges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 17), (23, 1), (2, 2), (1, 600)])
@pytest.mark.parametrize("labels", [1, 2, 21, 33])
def test_the_smallest_images(height: int, width: int, labels: int) -> None:
    image = random_image(height, width)
    unary = -np.random.default_rng(0).normal(size=(labels, height, width)).astype(np.float32)
    kernels = CRFParams().kernels()
    q = NativeEngine().infer(image, unary, kernels, 10)
    assert np.abs(q - PydensecrfEngine().infer(image, unary, kernels, 10)).max() <= 2e-3


def test_three_hundred_labels() -> None:
    image, logits = random_image(16, 18), smooth_logits(300, 16, 18, scale=4)
    kernels = CRFParams(theta_beta=30.0).kernels()
    q = NativeEngine().infer(image, -logits, kernels, 3)
    assert np.abs(q - PydensecrfEngine().infer(image, -logits, kernels, 3)).max() <= 2e-3


def test_no_iterations_and_no_kernels_leave_the_softmax() -> None:
    image, logits = random_image(6, 7), smooth_logits(3, 6, 7)
    for kernels, iterations in ((CRFParams().kernels(), 0), ((), 5)):
        np.testing.assert_allclose(
            NativeEngine().infer(image, -logits, kernels, iterations), softmax(logits), atol=1e-6
        )


@pytest.mark.parametrize("labels", [3, 21])
def test_extreme_thetas_join_every_pixel_or_none(labels: int) -> None:
    image, logits = np.full((20, 30, 3), 255, np.uint8), smooth_logits(labels, 20, 30)
    own = shared = logits
    for _ in range(6):
        own = logits + 2 * softmax(own)
        shared = logits + 2 * softmax(shared).mean((1, 2), keepdims=True)
    for theta, scores in ((0.02, own), (1e6, shared), (1e30, shared)):
        q = NativeEngine().infer(image, -logits, [Bilateral(theta, theta, 2.0, "after")], 6)
        np.testing.assert_allclose(q, softmax(scores), atol=2e-3)


def test_a_theta_below_what_numbers_tell_apart_is_refused() -> None:
    image, unary = photograph("coffee", 20, 30), np.zeros((2, 20, 30), np.float32)
    with pytest.raises(ValueError, match="raise its theta"):
        NativeEngine().infer(image, unary, [Bilateral(1e-6, 1e-6)], 1)
    with pytest.raises(ValueError, match="theta is 0 as a 32-bit number"):
        NativeEngine().infer(image, unary, [Bilateral(1e-60, 3.0)], 1)


def test_energies_beyond_all_measure_still_decide() -> None:
    unary = np.zeros((3, 2, 3), np.float32)
    unary[0], unary[1], unary[2] = 3e38, -3e38, 1e38
    np.testing.assert_array_equal(NativeEngine().infer(None, unary, [Gaussian(3.0)], 2)[1], 1)
    same = np.full((3, 2, 3), np.finfo(np.float32).max)
    np.testing.assert_allclose(NativeEngine().infer(None, same, [], 2), 1 / 3, atol=1e-6)


def test_an_image_that_cannot_fit_in_memory_is_refused_before_it_is_tried() -> None:
    values = np.zeros((200, 1, 1), np.float32)
    with pytest.raises(MemoryError, match=r"10000 x 100000 with 200 labels needs about \d+ MiB.*tiles"):
        _core.infer_coarse(None, values, 10_000, 100_000, 100_000, native_kernels([Gaussian(3.0)]), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((4, 6, 3), np.uint8)},
        {"image": None},
        {"unary": np.zeros((0, 4, 5), np.float32)},
        {"kernels": [Bilateral(3.0, 3.0, np.zeros(3, np.float32))]},
        {"kernels": [Features(np.zeros((2, 19), np.float32))]},
        {"kernels": [Features(np.zeros((40, 20), np.float32))]},
        {"iterations": -1},
    ],
)
def test_the_extension_itself_refuses_what_does_not_fit(change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "image": np.zeros((4, 5, 3), np.uint8),
        "unary": np.zeros((2, 4, 5), np.float32),
        "kernels": [Bilateral(3.0, 3.0)],
        "iterations": 1,
    }
    NativeEngine().infer(**good)  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError)):
        NativeEngine().infer(**good | change)  # type: ignore[arg-type]
