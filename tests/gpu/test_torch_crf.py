"""The torch CRF engine on a CUDA device: the CPU's results, in every run, with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from segbatch.crf import Bilateral, CRFParams, Gaussian
from segbatch.crf.torch_engine import TorchEngine
from segbatch.crf.torch_filter import _bilateral
from segbatch.crf.torch_lattice import build_lattice
from segbatch.crf.torch_mean_field import MeanField, mean_field

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def crops(count: int, height: int, width: int) -> np.ndarray:
    """Crops of a photograph, uint8 (count, height, width, 3)."""
    photo = data.astronaut()
    return np.stack([photo[20 * i : 20 * i + height, 30 * i : 30 * i + width] for i in range(count)])


def energies(count: int, labels: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).normal(size=(count, labels, height // 8 + 2, width // 8 + 2)) * 2
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear")
    return fine.numpy().astype(np.float32)


@pytest.mark.parametrize("normalization", ["none", "before", "after", "symmetric"])
@pytest.mark.parametrize(("alpha", "beta", "labels"), [(67.0, 3.0, 21), (80.0, 13.0, 4), (160.0, 3.0, 70)])
def test_equals_the_cpu(alpha: float, beta: float, labels: int, normalization: str) -> None:
    images, unary = crops(3, 180, 203), energies(3, labels, 180, 203)
    weight = 0.01 if normalization == "none" else 1.0
    kernels = CRFParams(4.0 * weight, alpha, beta, 3.0 * weight, normalization=normalization).kernels()
    on_cpu = TorchEngine("cpu").infer_batch(images, unary, kernels, 10)
    on_gpu = TorchEngine("cuda").infer_batch(images, unary, kernels, 10)
    for cpu, gpu in zip(on_cpu, on_gpu, strict=True):
        assert np.abs(cpu - gpu).max() <= 2e-3
        assert (cpu.argmax(0) == gpu.argmax(0)).mean() >= 0.9995


@pytest.mark.parametrize("kernel", [Bilateral(67.0, 3.0), Bilateral(80.0, 13.0), Gaussian(3.0)])
def test_the_lattice_is_the_cpus_to_the_bit(kernel: Bilateral | Gaussian) -> None:
    images = torch.from_numpy(crops(2, 180, 203))
    images[1, :90] = 255  # a background: rows of thousands of entries
    features = torch.from_numpy(np.stack([kernel.features(i.numpy(), 180, 203).T for i in images]))
    cpu, gpu = build_lattice(features), build_lattice(features.cuda())
    assert gpu.vertices == cpu.vertices
    for a, b in ((cpu.splat, gpu.splat), (cpu.slice, gpu.slice)):
        assert torch.equal(b.index.cpu(), a.index)
        assert torch.equal(b.weights.cpu(), a.weights)
    assert torch.equal(gpu.order.cpu(), cpu.order)
    values = torch.rand(2 * 180 * 203, 21)
    torch.testing.assert_close(gpu.splat(values.cuda()).cpu(), cpu.splat(values), rtol=1e-4, atol=1e-4)
    if isinstance(kernel, Bilateral):
        assert torch.equal(_bilateral(kernel, images.cuda()).cpu(), features)


def test_auto_takes_the_gpu_and_mixed_sizes_and_labels_work() -> None:
    engine = TorchEngine()
    assert engine.device.type == "cuda"
    sizes, labels = [(60, 70), (31, 90), (60, 70)], [5, 2, 3]
    images = [crops(1, h, w)[0] for h, w in sizes]
    unaries = [energies(1, k, h, w)[0] for k, (h, w) in zip(labels, sizes, strict=True)]
    kernels = CRFParams().kernels()
    for image, unary, q in zip(images, unaries, engine.infer_batch(images, unaries, kernels, 5), strict=True):
        expected = TorchEngine("cpu").infer(image, unary, kernels, 5)
        assert np.abs(q - expected).max() <= 2e-3


@pytest.mark.parametrize("labels", [1, 4, 21])
def test_one_image_alone(labels: int) -> None:
    """Of one image the rows of the unary would be a view with other strides."""
    unary = energies(1, labels, 90, 101)[0]
    on_cpu, on_gpu = (
        TorchEngine(device).infer(crops(1, 90, 101)[0], unary, CRFParams().kernels(), 5) for device in ("cpu", "cuda")
    )
    assert np.abs(on_cpu - on_gpu).max() <= 2e-3


def test_the_result_is_the_same_in_every_run() -> None:
    images = torch.from_numpy(crops(4, 180, 203)).cuda()
    unary = torch.from_numpy(energies(4, 21, 180, 203)).cuda()
    kernels = CRFParams().kernels()
    first = mean_field(images, unary, kernels, 10)
    for _ in range(3):
        assert torch.equal(mean_field(images, unary, kernels, 10), first)


def test_gradcheck() -> None:
    images = torch.from_numpy(crops(2, 3, 4)).cuda()
    unary = torch.randn(2, 3, 3, 4, dtype=torch.float64, device="cuda", requires_grad=True)
    matrix = torch.randn(3, 3, dtype=torch.float64, device="cuda", requires_grad=True)
    weight = torch.tensor(1.5, dtype=torch.float64, device="cuda", requires_grad=True)
    kernels = [Bilateral(20.0, 40.0), Gaussian(2.0)]
    assert torch.autograd.gradcheck(
        lambda *tensors: mean_field(images, tensors[0], kernels, 2, tensors[1:]), (unary, matrix, weight)
    )


def test_the_layer_has_the_cpus_gradients() -> None:
    images, logits = torch.from_numpy(crops(2, 64, 72)), torch.from_numpy(energies(2, 6, 64, 72))
    gradients = []
    for device in ("cpu", "cuda"):
        layer = MeanField(6).to(device)
        scores = logits.to(device).detach().clone().requires_grad_()
        layer(images.to(device), scores).square().mean().backward()
        gradients.append([scores.grad, *(p.grad for p in layer.parameters())])
    for cpu, gpu in zip(*gradients, strict=True):
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-2, atol=1e-4 * cpu.abs().max().item())
