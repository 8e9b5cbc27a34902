"""The torch engine: the reference's lattice, the exact kernel, its derivatives, and CRF-as-RNN's layer."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segbatch.crf import Bilateral, CRFParams, DenseCRF, Features, Gaussian
from segbatch.crf import torch_filter as filters
from segbatch.crf.torch_engine import TorchEngine
from segbatch.crf.torch_filter import GaussianFilter, build_filter
from segbatch.crf.torch_lattice import build_lattice
from segbatch.crf.torch_mean_field import MeanField, mean_field
from tests.crf.inputs import NORMALIZATIONS, exact_mean_field, photograph, random_image, smooth_logits

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


# --- against the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(
    ("photo", "alpha", "beta", "gamma", "labels"),
    [
        ("astronaut", 67.0, 3.0, 3.0, 5),
        ("coffee", 80.0, 13.0, 3.0, 21),
        ("coffee", 160.0, 3.0, 3.0, 2),
        ("astronaut", 20.0, 40.0, 9.0, 4),
    ],
)
def test_equals_pydensecrf(
    photo: str, alpha: float, beta: float, gamma: float, labels: int, normalization: str
) -> None:
    image = photograph(photo, 124, 157)
    logits = smooth_logits(labels, 124, 157)
    weight = 0.01 if normalization == "none" else 1.0
    params = CRFParams(4.0 * weight, alpha, beta, 3.0 * weight, gamma, 10, normalization, prune=0)
    ours = DenseCRF(params, engine="torch").refine(image, logits=logits)
    reference = DenseCRF(params, engine="pydensecrf").refine(image, logits=logits)
    assert (reference.argmax(0) != logits.argmax(0)).mean() > 0.02, "the reference must have something to do"
    assert np.abs(ours - reference).max() <= 2e-3
    assert (ours.argmax(0) == reference.argmax(0)).mean() >= 0.9995


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_equals_native(normalization: str) -> None:
    pytest.importorskip("segbatch.crf.native_engine", reason="the native engine is not built")
    image, logits = photograph("coffee", 124, 157), smooth_logits(6, 124, 157)
    weight = 0.01 if normalization == "none" else 1.0
    params = CRFParams(4.0 * weight, 67.0, 3.0, 3.0 * weight, normalization=normalization, prune=0)
    ours = DenseCRF(params, engine="torch").refine(image, logits=logits)
    native = DenseCRF(params, engine="native").refine(image, logits=logits)
    assert np.abs(ours - native).max() <= 2e-3


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 6])
def test_equals_pydensecrf_on_features_of_any_dimension(dims: int) -> None:
    logits = smooth_logits(4, 30, 40)
    values = np.cumsum(np.random.default_rng(dims).normal(size=(dims, 30 * 40)), 1).astype(np.float32) / 3
    kernels = [Features(values, 3.0, "symmetric"), Gaussian((2.0, 5.0), 1.0, "after")]
    ours = DenseCRF(CRFParams(prune=0), engine="torch", kernels=kernels).refine(None, logits=logits)
    reference = DenseCRF(CRFParams(prune=0), engine="pydensecrf", kernels=kernels).refine(None, logits=logits)
    assert np.abs(ours - reference).max() <= 2e-3
    assert np.abs(ours - torch.from_numpy(logits).softmax(0).numpy()).max() > 0.1


def test_equals_pydensecrf_with_diagonal_and_matrix_compatibility() -> None:
    image, logits = photograph("astronaut", 90, 103), smooth_logits(4, 90, 103)
    random = np.random.default_rng(3)
    matrix = random.normal(size=(4, 4)).astype(np.float32)
    kernels = [
        Bilateral((40.0, 60.0), (8.0, 9.0, 10.0), matrix + matrix.T - 3 * np.eye(4, dtype=np.float32), "after"),
        Gaussian(3.0, -random.uniform(1, 4, size=4).astype(np.float32), "symmetric"),
    ]
    ours = DenseCRF(CRFParams(prune=0), engine="torch", kernels=kernels).refine(image, logits=logits)
    reference = DenseCRF(CRFParams(prune=0), engine="pydensecrf", kernels=kernels).refine(image, logits=logits)
    assert np.abs(ours - reference).max() <= 2e-3


def test_an_asymmetric_compatibility_acts_as_it_stands() -> None:
    """Label 0 pays for neighbors of label 1, not the other way round."""
    compat = np.zeros((2, 2), np.float32)
    compat[0, 1] = 5.0
    unary = np.zeros((2, 12, 12), np.float32)
    q = TorchEngine("cpu").infer(None, unary, [Gaussian(3.0, compat, "after")], 5)
    assert (q[1] > 0.9).all()


# --- against the exact kernel --------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(10.0, 20.0, 3.0), (5.0, 40.0, 2.0)])
def test_near_all_pairs_and_no_further_than_pydensecrf(
    alpha: float, beta: float, gamma: float, normalization: str
) -> None:
    image, logits = photograph("coffee", 30, 36), smooth_logits(3, 30, 36)
    # The lattice's kernel is not as high as the Gaussian's, which only a norm makes up for.
    weight = 0.01 if normalization == "none" else 1.0
    params = CRFParams(2.0 * weight, alpha, beta, 2.0 * weight, gamma, 5, normalization, prune=0)
    exact = exact_mean_field(image, logits, params.kernels(), 5)
    ours = np.abs(DenseCRF(params, engine="torch").refine(image, logits=logits) - exact)
    reference = np.abs(DenseCRF(params, engine="pydensecrf").refine(image, logits=logits) - exact)
    untouched = np.abs(torch.from_numpy(logits).softmax(0).numpy() - exact)
    assert ours.mean() <= reference.mean() + 1e-5
    assert ours.max() <= reference.max() + 1e-4
    assert ours.mean() < (0.6 if normalization == "none" else 0.35) * untouched.mean()


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_the_lattice_equals_a_literal_one(dims: int) -> None:
    """Splat, blur and slice written out over a dictionary of vertices."""
    random = np.random.default_rng(dims)
    features = np.cumsum(random.normal(size=(2, 40, dims)), 1).astype(np.float32) * 0.7
    values = random.normal(size=(80, 3))
    lattice = build_lattice(torch.from_numpy(features), torch.float64)
    ours = GaussianFilter(lattice, "none")(torch.from_numpy(values)).numpy()
    literal = np.concatenate([literal_filter(f, v) for f, v in zip(features, np.split(values, 2), strict=True)])
    np.testing.assert_allclose(ours, literal, atol=2e-5)


def literal_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    points, dims = features.shape
    corners = dims + 1
    basis = np.zeros((corners, dims))  # columns of the elevation, Adams et al. 2010, sec. 3.2
    for axis in range(1, corners):
        basis[:axis, axis - 1], basis[axis, axis - 1] = 1, -axis
        basis[:, axis - 1] /= np.sqrt(axis * (axis + 1))
    elevated = features.astype(np.float64) @ basis.T * corners * np.sqrt(2 / 3)
    table: dict[tuple[int, ...], np.ndarray] = {}
    places = []
    for point in range(points):
        key = np.round(elevated[point] / corners).astype(int) * corners
        order = np.argsort(-(elevated[point] - key), kind="stable")
        for i in range(key.sum() // corners):  # too high: lower the axes that were rounded up furthest
            key[order[::-1][i]] -= corners
        for i in range(-key.sum() // corners):
            key[order[i]] += corners
        order = np.argsort(-(elevated[point] - key), kind="stable")
        rest = np.sort(elevated[point] - key)[::-1]
        vertex, mine = key.copy(), []
        for color in range(corners):
            weight = (
                1 - (rest[0] - rest[-1]) / corners
                if color == 0
                else (rest[dims - color] - rest[corners - color]) / corners
            )
            mine.append(
                (tuple(vertex + color - corners * np.isin(np.arange(corners), order[corners - color :])), weight)
            )
        places.append(mine)
        for vertex_key, weight in mine:
            table[vertex_key] = table.get(vertex_key, 0) + weight * values[point]
    for axis in range(corners):
        along = -np.ones(corners, int)
        along[axis] = dims
        zero = np.zeros(values.shape[1])
        table = {
            k: v + 0.5 * (table.get(tuple(k + along), zero) + table.get(tuple(k - along), zero))
            for k, v in table.items()
        }
    out = np.stack([sum(w * table[k] for k, w in mine) for mine in places])
    return out / (1 + 2.0**-dims)


# --- derivatives ---------------------------------------------------------------------------------------------


def small_filter(normalization: str, images: int = 2) -> GaussianFilter:
    features = np.random.default_rng(0).normal(size=(images, 7, 3)).astype(np.float32)
    return GaussianFilter(build_lattice(torch.from_numpy(features), torch.float64), normalization)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_filter_has_its_adjoint_as_derivative(normalization: str) -> None:
    gaussian = small_filter(normalization)
    x, y = torch.randn(2, 14, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    forward, backward = (gaussian(x) * y).sum(), (x * gaussian.transposed(y)).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-12, atol=1e-12)
    again = gaussian.transposed.transposed(x)
    torch.testing.assert_close(again, gaussian(x), rtol=0, atol=0)
    assert torch.autograd.gradcheck(gaussian, (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(gaussian, (x,))


def test_a_repeated_filter_is_the_filter_of_each_image() -> None:
    gaussian = small_filter("symmetric", images=1)
    values = torch.randn(3, 7, 2, dtype=torch.float64)
    thrice = gaussian.repeat(3)
    each = torch.cat([gaussian(v) for v in values])
    torch.testing.assert_close(thrice(values.reshape(21, 2)), each, rtol=0, atol=0)
    adjoint = torch.cat([gaussian.transposed(v) for v in values])
    torch.testing.assert_close(thrice.transposed(values.reshape(21, 2)), adjoint, rtol=0, atol=0)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradcheck_of_mean_field(normalization: str) -> None:
    images = torch.from_numpy(np.stack([random_image(3, 4, seed) for seed in (0, 1)]))
    random = torch.Generator().manual_seed(1)
    unary = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=random, requires_grad=True)
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    diagonal = torch.randn(3, dtype=torch.float64, generator=random).requires_grad_()
    matrix = torch.randn(3, 3, dtype=torch.float64, generator=random).requires_grad_()
    kernels = [
        Bilateral(20.0, 40.0, 1.0, normalization),
        Gaussian(2.0, 1.0, normalization),
        Gaussian(1.0, 1.0, normalization),
    ]

    def marginals(unary: Tensor, *compats: Tensor) -> Tensor:
        return mean_field(images, unary, kernels, 3, compats)

    assert torch.autograd.gradcheck(marginals, (unary, weight, diagonal, matrix))


@pytest.mark.parametrize("diagonal", [False, True])
def test_gradcheck_of_the_layer(diagonal: bool) -> None:
    layer = MeanField(3, train_iterations=3, theta_alpha=20.0, theta_beta=40.0, diagonal=diagonal).double()
    images = torch.from_numpy(np.stack([random_image(3, 4, seed) for seed in (0, 1)]))
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=random, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]
    assert names == ["spatial", "bilateral", "compatibility"]
    start = [
        (p.detach() + 0.3 * torch.randn(p.shape, dtype=torch.float64, generator=random)).requires_grad_()
        for p in layer.parameters()
    ]

    def refined(logits: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        result: Tensor = torch.func.functional_call(layer, named, (images, logits))
        return result

    assert torch.autograd.gradcheck(refined, (logits, *start))


# --- CRF-as-RNN's layer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("potts", ["minus identity", "one minus identity"])
@pytest.mark.parametrize("engine", ["torch", "pydensecrf"])
def test_the_layer_with_potts_is_the_dense_crf(potts: str, engine: str) -> None:
    image, logits = photograph("coffee", 96, 101), smooth_logits(4, 96, 101)
    layer = MeanField(4, iterations=10).eval()
    spatial, bilateral = np.float32([3, 1, 2, 4]), np.float32([5, 2, 6, 3])
    with torch.no_grad():
        layer.spatial.copy_(torch.diag(torch.from_numpy(spatial)))
        layer.bilateral.copy_(torch.diag(torch.from_numpy(bilateral)))
        if potts == "one minus identity":  # differs by a constant a pixel, which softmax does not see
            layer.compatibility.add_(1.0)
        q = layer(torch.from_numpy(image)[None], torch.from_numpy(logits)[None]).softmax(1)[0].numpy()
    kernels = [Gaussian(3.0, -spatial, "after"), Bilateral(160.0, 3.0, -bilateral, "after")]
    crf = DenseCRF(CRFParams(prune=0), engine=engine, kernels=kernels)
    assert np.abs(q - crf.refine(image, logits=logits)).max() <= 2e-3


def test_one_weight_a_label_is_a_diagonal_matrix() -> None:
    full, diagonal = MeanField(4).eval(), MeanField(4, diagonal=True).eval()
    assert sum(p.numel() for p in diagonal.parameters()) == 4 + 4 + 16
    with torch.no_grad():
        for name, weights in (("spatial", [3.0, 1, 2, 4]), ("bilateral", [5.0, 2, 6, 3])):
            diagonal.get_parameter(name).copy_(torch.tensor(weights))
            full.get_parameter(name).copy_(torch.diag(torch.tensor(weights)))
        for layer in (full, diagonal):
            layer.compatibility.add_(torch.arange(16.0).reshape(4, 4) / 10)
        image = torch.from_numpy(photograph("coffee", 40, 41))[None]
        logits = torch.from_numpy(smooth_logits(4, 40, 41))[None]
        torch.testing.assert_close(diagonal(image, logits), full(image, logits), rtol=1e-5, atol=1e-5)


def test_the_untrained_layer_is_the_papers_start() -> None:
    image, logits = photograph("coffee", 96, 101), smooth_logits(4, 96, 101)
    params = CRFParams(5.0, 160.0, 3.0, 3.0, 3.0, normalization="after", prune=0)
    layer = MeanField(4)
    with torch.no_grad():
        for training, iterations in ((True, 5), (False, 10)):
            layer.train(training)
            q = layer(torch.from_numpy(image)[None], torch.from_numpy(logits)[None]).softmax(1)[0].numpy()
            unary = -logits
            expected = TorchEngine("cpu").infer(image, unary, params.kernels(), iterations)
            np.testing.assert_allclose(q, expected, atol=1e-5)


def test_the_layer_learns() -> None:
    images = torch.from_numpy(np.stack([random_image(16, 20, seed) for seed in range(3)]))
    truth = torch.zeros(3, 16, 20, dtype=torch.long)
    truth[:, :, 10:] = 1
    random = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2) + torch.randn(3, 3, 16, 20, generator=random)
    layer = MeanField(3, theta_alpha=20.0, theta_beta=30.0)
    with torch.no_grad():
        layer.compatibility.zero_()  # no coupling: nothing is refined yet
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(layer(images, logits), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_layer_ignores_autocast_and_takes_half_scores() -> None:
    image = torch.from_numpy(random_image(12, 14))[None]
    logits = torch.from_numpy(smooth_logits(3, 12, 14))[None].to(torch.bfloat16)
    layer = MeanField(3).eval()
    plain = layer(image, logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = layer(image, logits)
    assert plain.dtype == torch.float32
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_a_filter_kept_by_inference_mode_serves_training() -> None:
    image = torch.from_numpy(random_image(11, 13))[None]
    logits = torch.from_numpy(smooth_logits(2, 11, 13))[None]
    layer = MeanField(2, theta_gamma=2.25)
    with torch.inference_mode():
        layer(image, logits)
    layer(image, logits).sum().backward()
    assert layer.spatial.grad is not None


# --- batches, memory, determinism ----------------------------------------------------------------------------


def test_a_batch_is_its_images_one_by_one() -> None:
    sizes = [(40, 50), (33, 21), (40, 50), (50, 40), (40, 50), (33, 21)]
    labels = [4, 2, 9, 3, 4, 5]
    images = [random_image(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    unaries = [-smooth_logits(k, h, w, seed) for seed, ((h, w), k) in enumerate(zip(sizes, labels, strict=True))]
    kernels = CRFParams(theta_beta=20.0).kernels()
    alone = [TorchEngine("cpu").infer(i, u, kernels, 6) for i, u in zip(images, unaries, strict=True)]
    for limit in (1, 4500, 10**6):
        together = TorchEngine("cpu", max_pixels=limit).infer_batch(images, unaries, kernels, 6, threads=2)
        for one, of_many in zip(alone, together, strict=True):
            assert one.shape == of_many.shape
            np.testing.assert_allclose(of_many, one, atol=2e-6)


def test_arrays_are_batches_too() -> None:
    images = np.stack([random_image(20, 24, seed) for seed in range(3)])
    unary = np.stack([-smooth_logits(3, 20, 24, seed) for seed in range(3)])
    kernels = CRFParams().kernels()
    engine = TorchEngine("cpu", max_pixels=10**6)
    marginals = np.stack(engine.infer_batch(images, unary, kernels, 4))
    tensors = mean_field(torch.from_numpy(images), torch.from_numpy(unary), kernels, 4)
    np.testing.assert_array_equal(marginals, tensors.numpy())
    np.testing.assert_allclose(marginals.sum(1), 1, atol=1e-5)
    assert engine.infer_batch([], [], kernels, 4) == []


def test_many_labels_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    image, unary = random_image(16, 18), -smooth_logits(300, 16, 18, scale=4)
    kernels = CRFParams(theta_beta=30.0).kernels()
    in_blocks = TorchEngine("cpu").infer(image, unary, kernels, 3)
    monkeypatch.setattr(filters, "LABEL_BLOCK", 1000)
    at_once = TorchEngine("cpu").infer(image, unary, kernels, 3)
    np.testing.assert_allclose(in_blocks, at_once, atol=1e-6)
    reference = DenseCRF(CRFParams(theta_beta=30.0, iterations=3, prune=0), engine="pydensecrf")
    assert np.abs(in_blocks - reference.refine(image, unary=unary)).max() <= 2e-3


class _Largest(TorchDispatchMode):
    """The most elements that any operation wrote into one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_table_holds_every_label_of_every_vertex() -> None:
    height, width, labels = 24, 30, 200
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)  # vertices unshared
    unary = np.zeros((labels, height, width), np.float32)
    with _Largest() as largest:
        TorchEngine("cpu").infer(image, unary, [Bilateral(5.0, 1.0)], 1)
    pixels = height * width
    assert pixels * labels <= largest.elements <= pixels * max(labels, 6 * filters.LABEL_BLOCK)


MEMORY = """
import resource, sys
import numpy as np, torch
from segbatch.crf import CRFParams
from segbatch.crf.torch_engine import TorchEngine
from segbatch.crf.torch_mean_field import MeanField
torch.set_num_threads(1)
H, W, K = 64, 80, 21
MAP = K * H * W * 4 / 2**20
random = np.random.default_rng(0)
images = np.repeat(random.integers(0, 256, (1, H, W, 3)).astype(np.uint8), 30, 0)
unary = np.zeros((30, K, H, W), np.float32)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
engine, kernels = TorchEngine("cpu", max_pixels=2 * H * W), CRFParams().kernels()
engine.infer_batch(images[:10], unary[:10], kernels, 1)
few = peak()
engine.infer_batch(images, unary, kernels, 1)
batch = (peak() - few) / MAP
layer, logits = MeanField(K), torch.zeros(1, K, H, W, requires_grad=True)
def train(iterations):
    layer.train_iterations = iterations
    layer(torch.from_numpy(images[:1]), logits).sum().backward()
    return peak()
train(12)
base = peak()
deeper = (train(42) - base) / MAP
print(batch, deeper)
"""


def test_memory_is_bounded_by_the_pass_and_by_a_map_an_iteration() -> None:
    # Freed arrays go back to the system at once, so that the peak is that of the live ones.
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    ran = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env=exact)
    batch, deeper = map(float, ran.stdout.split())
    # 20 more results, each a map; without the bound, 20 more of what a pass holds (tens of maps an image).
    assert batch < 20 * 1.5
    # 30 more iterations, each a map; without recomputation each would keep more.
    assert deeper < 30 * 1.3


def test_the_result_is_the_same_in_every_run_and_for_any_number_of_threads() -> None:
    image, unary = photograph("astronaut", 80, 90), -smooth_logits(5, 80, 90)
    kernels = CRFParams().kernels()
    first = TorchEngine("cpu").infer(image, unary, kernels, 10)
    torch.set_num_threads(2)
    try:
        again = TorchEngine("cpu").infer(image, unary, kernels, 10)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(first, again)


def test_spatial_filters_are_kept_by_size_and_theta_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = filters._SpatialFilters()
    monkeypatch.setattr(filters, "_SPATIAL", kept)
    unary = -smooth_logits(2, 20, 24)
    once = {
        (theta, norm): TorchEngine("cpu").infer(None, unary, [Gaussian(theta, 3.0, norm)], 3)
        for theta, norm in itertools.product((2.0, 4.0), ("after", "symmetric"))
    }
    assert len(kept._cache) == 4
    for (theta, norm), expected in once.items():
        again = TorchEngine("cpu").infer(None, unary, [Gaussian(theta, 3.0, norm)], 3)
        np.testing.assert_array_equal(again, expected)
    assert len(kept._cache) == 4
    pair = TorchEngine("cpu").infer_batch([None] * 2, [unary] * 2, [Gaussian(2.0, 3.0, "after")], 3)
    np.testing.assert_allclose(pair[1], once[2.0, "after"], atol=1e-6)
    assert len(kept._cache) == 5  # of a batch too
    for width in range(3, 30):
        TorchEngine("cpu").infer(None, np.zeros((2, 4, width), np.float32), [Gaussian(2.0)], 1)
    assert len(kept._cache) == kept.ENTRIES
    monkeypatch.setattr(kept, "PIXELS", 500)
    for width in range(40, 44):
        TorchEngine("cpu").infer(None, np.zeros((2, 4, width), np.float32), [Gaussian(2.0)], 1)
    assert [f.points for f in kept._cache.values()] == [168, 172]


# --- edges and bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 17), (23, 1), (2, 2)])
@pytest.mark.parametrize("labels", [1, 2])
def test_the_smallest_images(height: int, width: int, labels: int) -> None:
    image = random_image(height, width)
    unary = -np.random.default_rng(0).normal(size=(labels, height, width)).astype(np.float32)
    params = CRFParams(prune=0)
    q = TorchEngine("cpu").infer(image, unary, params.kernels(), 10)
    reference = DenseCRF(params, engine="pydensecrf").engine.infer(image, unary, params.kernels(), 10)
    assert np.abs(q - reference).max() <= 2e-3


def test_no_iterations_and_no_kernels_leave_the_softmax() -> None:
    image, unary = random_image(6, 7), -smooth_logits(3, 6, 7)
    expected = torch.from_numpy(-unary).softmax(0).numpy()
    for kernels, iterations in ((CRFParams().kernels(), 0), ((), 5)):
        np.testing.assert_allclose(TorchEngine("cpu").infer(image, unary, kernels, iterations), expected, atol=1e-6)


def test_extreme_thetas_join_every_pixel_or_none() -> None:
    image, logits = np.full((20, 30, 3), 255, np.uint8), smooth_logits(3, 20, 30)
    own, shared = torch.from_numpy(logits), torch.from_numpy(logits)
    for _ in range(6):
        own = torch.from_numpy(logits) + 2 * own.softmax(0)
        shared = torch.from_numpy(logits) + 2 * shared.softmax(0).mean((1, 2), keepdim=True)
    engine = TorchEngine("cpu")
    for theta, scores in ((0.02, own), (1e6, shared)):
        q = engine.infer(image, -logits, [Bilateral(theta, theta, 2.0, "after")], 6)
        np.testing.assert_allclose(q, scores.softmax(0).numpy(), atol=1e-3)
    with pytest.raises(ValueError, match="larger theta"):
        engine.infer(photograph("coffee", 20, 30), -logits, [Bilateral(1e-4, 1e-4)], 1)


@pytest.mark.parametrize(
    ("images", "unary", "message"),
    [
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.zeros(1, 2, 4, 5), "channels last"),
        (torch.zeros(1, 4, 5, 3), torch.zeros(1, 2, 4, 5), "torch.float32"),
        (torch.zeros(2, 4, 5, 3, dtype=torch.uint8), torch.zeros(1, 2, 4, 5), r"\(1, 4, 5, 3\)"),
        (None, torch.zeros(1, 2, 4, 5), "images are None"),
        (None, torch.zeros(2, 4, 5), r"\(B, K, H, W\)"),
        (None, torch.zeros(1, 0, 4, 5), r"\(1, 0, 4, 5\)"),
        (None, torch.zeros(1, 2, 4, 5, dtype=torch.int64), "torch.int64"),
    ],
)
def test_bad_tensors_are_named(images: Tensor | None, unary: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_field(images, unary, [Bilateral(10.0, 10.0)], 1)


def test_bad_arguments_are_named() -> None:
    unary = torch.zeros(1, 2, 4, 5)
    with pytest.raises(ValueError, match=r"compat has shape \(3,\) but there are 2 labels"):
        mean_field(None, unary, [Gaussian(3.0, np.ones(3, np.float32))], 1)
    with pytest.raises(ValueError, match="compats has 2 entries but there are 1 kernels"):
        mean_field(None, unary, [Gaussian(3.0)], 1, [torch.ones(()), torch.ones(())])
    with pytest.raises(ValueError, match="device is 'gpu'"):
        TorchEngine("gpu")
    with pytest.raises(ValueError, match="max_pixels is 0"):
        TorchEngine("cpu", max_pixels=0)
    with pytest.raises(ValueError, match="num_classes is 0"):
        MeanField(0)
    with pytest.raises(ValueError, match="train_iterations is -1"):
        MeanField(2, train_iterations=-1)
    with pytest.raises(ValueError, match="logits have 2 classes but this layer has 3"):
        MeanField(3)(torch.zeros(1, 4, 5, 3, dtype=torch.uint8), unary)
    with pytest.raises(ValueError, match="normalization is 'both'"):
        GaussianFilter(build_lattice(torch.zeros(1, 2, 2)), "both")
    with pytest.raises(ValueError, match="not finite"):
        build_lattice(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"from 0 to 3e\+06, more than 2,000,000 standard deviations from 0"):
        build_lattice(torch.tensor([[[0.0, 3e6]]]))
    with pytest.raises(ValueError, match="more than 62 bits can name"):
        build_lattice(torch.tensor([[[0.0] * 5, [1e6] * 5]]))
    with pytest.raises(ValueError, match=r"\(1, 0, 2\)"):
        build_lattice(torch.zeros(1, 0, 2))
    gaussian = build_filter(Gaussian(3.0), None, (1, 2, 2), CPU, torch.float32)
    with pytest.raises(ValueError, match=r"\(5, 2\); this filter takes \(4, labels\)"):
        gaussian(torch.zeros(5, 2))
    with pytest.raises(TypeError, match="float64"):
        gaussian(torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_is_refused() -> None:
    assert TorchEngine().device.type == "cpu"
    with pytest.raises(ValueError, match="no CUDA device"):
        TorchEngine("cuda")


def test_the_gpu_benchmark_runs_where_there_is_no_gpu(tmp_path: Path) -> None:
    script, out = Path(__file__).parents[2] / "benchmarks" / "gpu.py", tmp_path / "gpu.json"
    small = "--device cpu --height 20 --width 30 --batch 2 --repeats 1 --iterations 2".split()
    subprocess.run([sys.executable, script, *small, "--json", out], check=True, capture_output=True)
    report = json.loads(out.read_text())
    assert [row["labels"] for row in report["results"]] == [21, 4, 21, 4]
    for row in report["results"]:
        assert row["max_abs_difference"] <= 2e-3
        assert row["resident_images_per_s"] > 0
        assert row["host_images_per_s"] > 0
