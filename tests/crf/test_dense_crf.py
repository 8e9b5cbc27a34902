"""The dense CRF that people call: what it takes, what it prunes, what it refuses and in which words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from segbatch.crf import Bilateral, CRFParams, DenseCRF, Features, Gaussian, Kernel, labels_to_probs
from tests.crf.inputs import exact_filter, photograph, random_image, smooth_logits
from tests.crf.test_native_engine import softmax

IMAGE = random_image(20, 25)
LOGITS = smooth_logits(4, 20, 25)
PARAMS = CRFParams(theta_beta=20.0, prune=0)

# --- scores in, marginals out --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "torch", "pydensecrf"])
def test_probs_logits_and_unary_say_the_same(engine: str) -> None:
    crf = DenseCRF(PARAMS, engine)
    from_logits = crf.refine(IMAGE, logits=LOGITS)
    assert from_logits.dtype == np.float32
    assert from_logits.shape == LOGITS.shape
    np.testing.assert_allclose(from_logits.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(crf.refine(IMAGE, unary=-LOGITS), from_logits, atol=1e-6)
    np.testing.assert_allclose(crf.refine(IMAGE, probs=softmax(LOGITS)), from_logits, atol=1e-4)


def test_half_precision_and_strided_scores_are_taken() -> None:
    crf = DenseCRF(PARAMS)
    half = LOGITS.astype(np.float16)
    np.testing.assert_array_equal(crf.refine(IMAGE, logits=half), crf.refine(IMAGE, logits=half.astype(np.float32)))
    strided = np.ascontiguousarray(LOGITS.transpose(1, 2, 0)).transpose(2, 0, 1)
    flipped = np.ascontiguousarray(IMAGE[::-1])[::-1]
    np.testing.assert_array_equal(crf.refine(flipped, logits=strided), crf.refine(IMAGE, logits=LOGITS))


def test_the_arguments_are_left_as_they_were() -> None:
    image, logits, ignore = IMAGE.copy(), LOGITS.copy(), np.zeros((20, 25), bool)
    for array in (image, logits, ignore):
        array.setflags(write=False)
    DenseCRF().refine(image, logits=logits, ignore=ignore)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(logits, LOGITS)


def test_the_map_is_the_likeliest_label() -> None:
    crf = DenseCRF(PARAMS)
    labels = crf.map(IMAGE, logits=LOGITS)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, crf.refine(IMAGE, logits=LOGITS).argmax(0))


def test_a_batch_is_its_images_one_by_one() -> None:
    sizes = [(20, 25), (9, 31), (20, 25), (1, 1)]
    images = [random_image(*size, seed) for seed, size in enumerate(sizes)]
    logits = [smooth_logits(3 + i, *size, i) * 4 for i, size in enumerate(sizes)]
    ignore = [None, np.eye(9, 31, dtype=bool), None, None]
    crf = DenseCRF(CRFParams(theta_beta=20.0, prune=0.05), threads=2)
    together = crf.refine_batch(images, logits=logits, ignore=ignore)
    for image, scores, mask, of_many in zip(images, logits, ignore, together, strict=True):
        np.testing.assert_array_equal(crf.refine(image, logits=scores, ignore=mask), of_many)
    assert crf.refine_batch([], logits=[]) == []


def test_a_compatibility_matrix_multiplies_the_weights() -> None:
    potts = 1 - np.eye(4, dtype=np.float32)
    matrix = DenseCRF(PARAMS, compat=potts).refine(IMAGE, logits=LOGITS)
    np.testing.assert_allclose(matrix, DenseCRF(PARAMS).refine(IMAGE, logits=LOGITS), atol=1e-4)


# --- pixels that say nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["probs", "logits", "unary"])
def test_ignored_pixels_follow_the_others(kind: str) -> None:
    ignore = np.zeros((20, 25), bool)
    ignore[5:15, 5:10] = True
    scores = {"probs": softmax(LOGITS), "logits": LOGITS, "unary": -LOGITS}[kind]
    other = scores.copy()
    other[:, ignore] = 0.25
    crf = DenseCRF(CRFParams(theta_beta=20.0))
    first = crf.refine(IMAGE, ignore=ignore, **{kind: scores})
    np.testing.assert_allclose(crf.refine(IMAGE, ignore=ignore, **{kind: other}), first, atol=1e-6)
    expected = crf.refine(IMAGE, unary=np.where(ignore, 0, -LOGITS).astype(np.float32))
    np.testing.assert_allclose(first, expected, atol=1e-4)


def test_where_all_pixels_are_ignored_nothing_is_known() -> None:
    q = DenseCRF().refine(IMAGE, logits=LOGITS, ignore=np.ones((20, 25), bool))
    np.testing.assert_allclose(q, 0.25, atol=1e-6)


def test_a_scribble_spreads_to_its_region() -> None:
    labels = np.full((20, 24), 255)
    labels[4:16, 2:5], labels[4:16, 18:21] = 0, 1
    probs = labels_to_probs(labels, 2, 0.9, ignore_index=255)
    q = DenseCRF(CRFParams(10.0, 30.0, 20.0, theta_gamma=1.0)).refine(random_image(20, 24), probs=probs)
    assert (q.argmax(0) == (np.arange(24) >= 12)).all()


def test_labels_become_probabilities() -> None:
    labels = np.array([[0, 2], [1, 9]], np.uint8)
    probs = labels_to_probs(labels, 3, 0.7, ignore_index=9)
    np.testing.assert_allclose(probs[:, 0, 1], [0.15, 0.15, 0.7], atol=1e-6)
    np.testing.assert_allclose(probs[:, 1, 1], 1 / 3, atol=1e-6)
    hard = labels_to_probs(labels, 10, 1.0)
    np.testing.assert_array_equal(hard.argmax(0), labels)
    assert set(np.unique(hard)) == {0.0, 1.0}
    np.testing.assert_array_equal(labels_to_probs(np.zeros((2, 2), int), 1), np.ones((1, 2, 2), np.float32))


# --- pruning -------------------------------------------------------------------------------------------------


def test_labels_that_cannot_win_are_left_out() -> None:
    logits = LOGITS.copy()
    logits[1] = logits.max() - 30
    q = DenseCRF(CRFParams(theta_beta=20.0, prune=1e-3)).refine(IMAGE, logits=logits)
    assert not q[1].any()
    alone = DenseCRF(PARAMS).refine(IMAGE, logits=logits[[0, 2, 3]])
    np.testing.assert_array_equal(q[[0, 2, 3]], alone)


def test_one_label_left_has_it_all() -> None:
    logits = LOGITS.copy()
    logits[2] += 60
    q = DenseCRF().refine(IMAGE, logits=logits)
    np.testing.assert_array_equal(q[2], 1)
    assert not q[[0, 1, 3]].any()


def test_the_likeliest_label_stays_whatever_the_threshold() -> None:
    q = DenseCRF(CRFParams(prune=0.999)).refine(IMAGE, logits=LOGITS * 0.01)
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "probability", "left"), [(40, 0.019, 39), (40, 0.021, 40), (51, 0.009, 50), (51, 0.011, 51)]
)
def test_the_default_threshold_is_lower_above_50_labels(labels: int, probability: float, left: int) -> None:
    """Label 0 has ``probability`` everywhere, the others share what is left."""
    logits = np.zeros((labels, 12, 10), np.float32)
    logits[0] = np.log(probability / (1 - probability) * (labels - 1))
    q = DenseCRF(CRFParams(w_bilateral=0)).refine(None, logits=logits)
    assert np.count_nonzero(q.any(axis=(1, 2))) == left


@pytest.mark.parametrize("kind", ["probs", "logits", "unary"])
def test_the_likeliest_label_of_a_pixel_stays_though_it_is_improbable(kind: str) -> None:
    """Of 150 labels the likeliest may have hardly more than 1 / 150. Pixels that are ignored do not count."""
    logits = np.zeros((150, 6, 5), np.float32)
    logits[149] -= 1e-3
    logits[7, 2, 3] = logits[149, 0, 0] = 1e-3
    scores = {"probs": softmax(logits), "logits": logits, "unary": -logits}[kind]
    ignore = np.zeros((6, 5), bool)
    ignore[0, 0] = True
    q = DenseCRF(CRFParams(0, w_spatial=1e-3)).refine(None, **{kind: scores}, ignore=ignore)
    assert np.flatnonzero(q.any(axis=(1, 2))).tolist() == list(range(149))
    assert q[:, 2, 3].argmax() == 7


def test_pruning_cuts_the_compatibility_too() -> None:
    logits = LOGITS.copy()
    logits[1] = logits.max() - 30
    random = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    kernels: Sequence[Kernel] = [Gaussian(2.0, random), Gaussian(3.0, random[0])]
    pruned = DenseCRF(CRFParams(prune=1e-3), kernels=kernels).refine(None, logits=logits)
    kernels = [Gaussian(2.0, random[np.ix_([0, 2, 3], [0, 2, 3])]), Gaussian(3.0, random[0][[0, 2, 3]])]
    alone = DenseCRF(PARAMS, kernels=kernels).refine(None, logits=logits[[0, 2, 3]])
    np.testing.assert_array_equal(pruned[[0, 2, 3]], alone)


# --- step by step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [3, 12, 40])
def test_steps_end_where_refine_does(labels: int) -> None:
    logits = smooth_logits(labels, 20, 25)
    crf = DenseCRF(PARAMS)
    pairs = list(crf.steps(IMAGE, logits=logits))
    assert len(pairs) == PARAMS.iterations + 1
    np.testing.assert_allclose(pairs[0][0], softmax(logits), atol=1e-6)
    np.testing.assert_allclose(pairs[-1][0], crf.refine(IMAGE, logits=logits), atol=1e-4)


def test_the_divergence_is_that_of_all_pairs() -> None:
    """KL(Q || P) = sum Q (log Q + U - sum over kernels of w K Q), over the lattice's kernel near the exact one."""
    params = CRFParams(1.0, 10.0, 30.0, 1.0, 3.0, 4, prune=0)
    image, logits = photograph("coffee", 20, 24), smooth_logits(3, 20, 24)
    kernels = params.kernels()
    matrices = [exact_filter(k.features(image, 20, 24), k.normalization) for k in kernels]
    for marginals, divergence in DenseCRF(params).steps(image, logits=logits):
        q = marginals.reshape(3, -1).T.astype(np.float64)
        energy = -logits.reshape(3, -1).T - sum(m @ q for m in matrices)
        assert divergence == pytest.approx((q * (np.log(np.maximum(q, 1e-20)) + energy)).sum(), rel=0.01)


@pytest.mark.parametrize("engine", ["torch", "pydensecrf"])
def test_other_engines_have_no_steps(engine: str) -> None:
    with pytest.raises(TypeError, match="use engine='native'"):
        DenseCRF(engine=engine).steps(IMAGE, logits=LOGITS)


# --- coarse scores -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride"), [((61, 83), 8), ((64, 80), 16), ((20, 25), 1), ((5, 7), 32)])
@pytest.mark.parametrize("labels", [3, 21, 40])
def test_coarse_scores_are_the_upsampled_ones(size: tuple[int, int], stride: int, labels: int) -> None:
    image = photograph("coffee", *size)
    cells = -(-size[0] // stride), -(-size[1] // stride)
    coarse = np.random.default_rng(0).normal(size=(labels, *cells)).astype(np.float32) * 2
    params = CRFParams(prune=0)
    winner, marginal = DenseCRF(params).refine_coarse(image, coarse, size, stride)
    assert (winner.dtype, marginal.dtype, winner.shape, marginal.shape) == (np.int32, np.float32, size, size)
    by_torch, marginal_by_torch = DenseCRF(params, "torch").refine_coarse(image, coarse, size, stride)
    assert (winner == by_torch).mean() >= 0.9999
    np.testing.assert_allclose(marginal, marginal_by_torch, atol=2e-3)


def test_coarse_scores_are_pruned_by_their_cells() -> None:
    coarse = np.zeros((5, 5, 6), np.float32)
    coarse[1], coarse[3], coarse[3, 2, 2] = 9.0, 9.0, 11.0
    winner, marginal = DenseCRF().refine_coarse(photograph("coffee", 40, 48), coarse, (40, 48), 8)
    alone, marginal_alone = DenseCRF(CRFParams(prune=0)).refine_coarse(
        photograph("coffee", 40, 48), coarse[[1, 3]], (40, 48), 8
    )
    np.testing.assert_array_equal(winner, np.array([1, 3])[alone])
    np.testing.assert_array_equal(marginal, marginal_alone)
    only, sure = DenseCRF().refine_coarse(IMAGE[:8, :8], coarse[:2, :1, :1], (8, 8), 8)
    assert (only == 1).all()
    assert (sure == 1).all()


# --- what is refused, and in which words ---------------------------------------------------------------------

ZEROS = np.zeros((2, 4, 5), np.float32)
PIXELS = np.zeros((4, 5, 3), np.uint8)


def _with(value: float) -> np.ndarray:
    values = ZEROS.copy()
    values[1, 2, 3] = value
    return values


@pytest.mark.parametrize(
    ("image", "scores", "message"),
    [
        (PIXELS.astype(np.float32), {"logits": ZEROS}, r"image has dtype float32; give uint8 .*image \* 255"),
        (PIXELS.tolist(), {"logits": ZEROS}, "image is list; give a NumPy array"),
        (PIXELS.transpose(2, 0, 1), {"logits": ZEROS}, r"image has shape \(3, 4, 5\).*transpose\(1, 2, 0\)"),
        (PIXELS[..., 0], {"logits": ZEROS}, r"image has shape \(4, 5\).*np.repeat"),
        (np.zeros((4, 5, 4), np.uint8), {"logits": ZEROS}, r"image has shape \(4, 5, 4\); give \(H, W, 3\)"),
        (PIXELS[:0], {"logits": ZEROS[:, :0]}, r"image has shape \(0, 5, 3\); give at least one pixel"),
        (None, {"logits": ZEROS}, "image is None but a Bilateral kernel needs one"),
        (PIXELS, {}, "got none of probs, logits, unary; give exactly one"),
        (PIXELS, {"logits": ZEROS, "probs": ZEROS}, "got probs and logits of"),
        (PIXELS, {"logits": ZEROS.astype(np.float64)}, r"logits has dtype float64; .*astype\(np.float32\)"),
        (PIXELS, {"unary": ZEROS.astype(np.int32)}, "unary has dtype int32"),
        (PIXELS, {"logits": ZEROS.tolist()}, "logits is list"),
        (PIXELS, {"logits": ZEROS[0]}, r"logits has shape \(4, 5\); give \(C, H, W\)"),
        (PIXELS, {"logits": ZEROS[None]}, r"logits has shape \(1, 2, 4, 5\)"),
        (PIXELS, {"logits": ZEROS.reshape(2, 5, 4)}, r"but the image is 4 x 5; give \(C, 4, 5\)"),
        (PIXELS, {"logits": np.zeros((4, 5, 2), np.float32)}, r"for HWC use .transpose\(2, 0, 1\)"),
        (PIXELS, {"logits": ZEROS[:0]}, "without a label; give at least one"),
        (PIXELS, {"logits": _with(np.nan)}, r"logits holds nan at label 1, row 2, column 3 \(1 such"),
        (PIXELS, {"unary": _with(np.inf)}, "unary holds inf at label 1, row 2, column 3"),
        (PIXELS, {"logits": _with(-np.inf)}, "logits holds -inf at label 1.*clip"),
        (PIXELS, {"probs": _with(1.5)}, r"probs range from 0 to 1.5; give 0 to 1, or pass them as logits="),
        (PIXELS, {"probs": _with(-0.1)}, r"probs range from -0.1"),
        (PIXELS, {"logits": ZEROS, "ignore": np.zeros((4, 5), np.uint8)}, r"ignore is uint8 \(4, 5\); give bool"),
        (PIXELS, {"logits": ZEROS, "ignore": np.zeros((5, 4), bool)}, r"ignore is bool \(5, 4\); give bool \(4, 5\)"),
        (PIXELS, {"logits": ZEROS, "ignore": [True]}, "ignore is list"),
        (
            PIXELS,
            {"logits": _with(np.nan), "ignore": np.ones((4, 5), bool)},
            "NaN or infinity at ignored pixels; set them to 0",
        ),
    ],
)
def test_bad_input_is_named(image: np.ndarray, scores: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        DenseCRF().refine(image, **scores)


@pytest.mark.parametrize(
    ("image", "logits", "size", "stride", "message"),
    [
        (PIXELS, ZEROS, (4, 5), 2, r"logits have shape \(2, 4, 5\), but an image of 4 x 5 at stride 2 has 2 x 3"),
        (PIXELS, ZEROS, (4, 5), 0, "stride is 0"),
        (PIXELS, ZEROS, (4, 5), 1.0, "stride is 1.0"),
        (PIXELS, ZEROS, (0, 5), 1, r"size is \(0, 5\); give \(height, width\)"),
        (PIXELS, ZEROS, (4,), 1, r"size is \(4,\)"),
        (PIXELS[:3], ZEROS, (4, 5), 1, r"image has shape \(3, 5, 3\) but size is \(4, 5\)"),
        (None, ZEROS, (4, 5), 1, "image is None"),
        (PIXELS, ZEROS.astype(np.float64), (4, 5), 1, "logits has dtype float64"),
    ],
)
def test_bad_coarse_input_is_named(
    image: np.ndarray, logits: np.ndarray, size: tuple[int, int], stride: int, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        DenseCRF().refine_coarse(image, logits, size, stride)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theta_alpha": 0.0}, "theta_alpha is 0.0; give a finite standard deviation above 0"),
        ({"theta_beta": -3.0}, "theta_beta is -3.0"),
        ({"theta_gamma": float("nan")}, "theta_gamma is nan"),
        ({"theta_gamma": "3"}, "theta_gamma is '3'"),
        ({"w_bilateral": float("inf")}, "w_bilateral is inf; give a finite number, 0 to leave the kernel out"),
        ({"iterations": -1}, "iterations is -1"),
        ({"iterations": 2.0}, "iterations is 2.0; give a whole number"),
        ({"normalization": "both"}, "normalization is 'both'; give one of none, before, after, symmetric"),
        ({"prune": 1.0}, "prune is 1.0; give a probability from 0"),
    ],
)
def test_bad_parameters_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CRFParams(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "theta is 0.0; give one finite standard deviation above 0, or 2 of them"),
        (lambda: Gaussian((3.0, -1.0)), r"theta is \(3.0, -1.0\)"),
        (lambda: Bilateral(3.0, (1.0, 2.0)), r"theta_rgb is \(1.0, 2.0\); give one .* or 3 of them"),
        (lambda: Gaussian(3.0, float("nan")), "compat is nan"),
        (lambda: Gaussian(3.0, np.zeros((2, 3))), r"compat has shape \(2, 3\); a matrix .* is square"),
        (lambda: Gaussian(3.0, normalization="x"), "normalization is 'x'"),
        (lambda: Features(np.zeros((2, 3))), r"features are float64 \(2, 3\); give float32 \(D, H, W\)"),
        (lambda: Features(np.full((2, 3), np.inf, np.float32)), "features hold NaN or infinity"),
        (lambda: DenseCRF(threads=0), "threads is 0"),
        (lambda: DenseCRF(engine="gpu"), "engine is 'gpu'; give one of native, pydensecrf, torch"),
        (lambda: DenseCRF(kernels=[Gaussian(3.0)], compat=np.eye(2)), "compat and kernels are both given"),
        (
            lambda: DenseCRF(kernels=[Gaussian(3.0, np.zeros(3, np.float32))]).refine(None, logits=ZEROS),
            r"compat of the Gaussian kernel has shape \(3,\) for 2 labels",
        ),
        (
            lambda: DenseCRF(kernels=[Features(np.zeros((2, 19), np.float32))]).refine(None, logits=ZEROS),
            "features hold 19 pixels but the image has 4 x 5 = 20",
        ),
        (
            lambda: DenseCRF(kernels=[Features(np.zeros((33, 20), np.float32))]).refine(None, logits=ZEROS),
            "features have .* more than 32",
        ),
        (
            lambda: DenseCRF().refine_batch([PIXELS], logits=[ZEROS, ZEROS]),
            "logits has 2 entries but there are 1 images",
        ),
        (lambda: labels_to_probs(np.zeros((2, 2)), 2), r"labels are float64 \(2, 2\)"),
        (lambda: labels_to_probs(np.full((2, 2), 255), 2), "labels hold 255; .* ignore_index=255"),
        (lambda: labels_to_probs(np.zeros((2, 2), int), 0), "num_labels is 0"),
        (lambda: labels_to_probs(np.zeros((2, 2), int), 2, 0.0), "confidence is 0.0"),
    ],
)
def test_bad_arguments_are_named(make: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("labels", [1, 2, 300])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_any_number_of_labels_at_the_smallest_sizes(labels: int, size: tuple[int, int]) -> None:
    q = DenseCRF().refine(random_image(*size), logits=np.zeros((labels, *size), np.float32))
    np.testing.assert_allclose(q, 1 / labels, atol=1e-6)


@pytest.mark.parametrize(
    ("engine", "package", "remedy"),
    [("pydensecrf", "pydensecrf", r"segbatch\[reference\]"), ("torch", "torch", "pip install torch")],
)
def test_an_engine_whose_package_is_missing_says_what_to_install(
    engine: str, package: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=remedy):
        DenseCRF(engine=engine)
