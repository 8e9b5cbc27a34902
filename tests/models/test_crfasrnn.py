"""CRF-as-RNN: the older FCN-8s, its mean-field layers, and the authors' file of weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segbatch import models
from segbatch.crf import Bilateral, CRFParams, DenseCRF, Gaussian
from segbatch.errors import ModelError
from segbatch.models.weights import CAFFE_BGR
from segbatch.models.zoo.crfasrnn import CRFasRNN, couplings
from segbatch.models.zoo.fcn import FCN
from segbatch.models.zoo.vgg16 import pixels
from tests.models import caffe_net, caffe_systems
from tests.models.caffe_net import Net
from tests.models.contract import photo
from tests.models.narrow import NarrowContract, on_meta, parameters, sides
from tests.models.test_caffe_systems import CLASSES, MEAN, assert_same, loaded

pytestmark = pytest.mark.usefixtures("one_thread")


class TestCRFasRNN(NarrowContract):
    name = "crfasrnn"
    options: ClassVar[dict[str, int]] = {"iterations": 2, "train_iterations": 1}


class NoMeanField(nn.Module):
    def forward(self, images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return logits


def test_sizes_and_parameters_for_500_pixels() -> None:
    network = on_meta(CRFasRNN, 21)
    learned_upsampling, mean_field = 2 * 16 * 21 * 21 + 21, 3 * 21 * 21
    assert parameters(network) == parameters(on_meta(FCN, 21)) + learned_upsampling + mean_field
    network.crf = NoMeanField()  # meta tensors have no pixels to filter
    found = {name: side for name, (side, other) in sides(network, 500, 500).items() if side == other}
    assert [found[n] for n in ("conv1_1", "pool3", "pool4", "pool5", "score_fr")] == [698, 88, 44, 22, 16]
    assert [found[n] for n in ("upscore2", "upscore_pool4", "upscore8", "")] == [34, 70, 568, 500]


def test_it_begins_as_fcn8s_and_the_papers_mean_field() -> None:
    network = CRFasRNN(3, iterations=0, narrow=32).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 40, 33) * 50
    fcn = FCN(3, narrow=32).eval()
    missing, unexpected = fcn.load_state_dict(network.state_dict(), strict=False)
    assert (missing, sorted(unexpected)) == (
        [],
        ["crf.bilateral", "crf.compatibility", "crf.spatial", "upscore2.bias"],
    )
    with torch.no_grad():
        torch.testing.assert_close(network(x), fcn(x))
    assert torch.equal(network.crf.spatial, 3 * torch.eye(3))
    assert torch.equal(network.crf.bilateral, 5 * torch.eye(3))
    assert torch.equal(network.crf.compatibility, -torch.eye(3))
    assert [(k.thetas, k.normalization) for k in network.crf.kernels] == [
        ((3.0, 3.0), "after"),
        ((160.0, 160.0, 3.0, 3.0, 3.0), "after"),
    ]
    assert (CRFasRNN(3, narrow=32).crf.iterations, CRFasRNN(3, narrow=32).crf.train_iterations) == (10, 5)


def test_mean_field_sees_the_image_that_was_given() -> None:
    image = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij") * 2, -1)[..., :3].astype(np.uint8)
    scale, shift = CAFFE_BGR.affine()
    x = torch.from_numpy(image[..., ::-1].copy()).float() * torch.tensor(scale) + torch.tensor(shift)
    assert np.array_equal(pixels(x.permute(2, 0, 1)[None])[0].numpy(), image)


def refined(image: np.ndarray, unary: np.ndarray, spatial: np.ndarray, bilateral: np.ndarray) -> np.ndarray:
    """The marginals of another engine, for label compatibilities of the two kernels."""
    kernels = [Gaussian(3.0, spatial, "after"), Bilateral(160.0, 3.0, bilateral, "after")]
    return DenseCRF(CRFParams(prune=0), "native", kernels=kernels).refine(image, logits=unary)


def test_the_untrained_network_is_fcn8s_and_a_dense_crf() -> None:
    image = photo(60, 70)
    x = torch.from_numpy((image[..., ::-1] - MEAN).transpose(2, 0, 1).copy())[None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = CRFasRNN(4, narrow=32).eval()
    with torch.inference_mode():
        unary = FCN.forward(network, x)[0].numpy()
        got = network(x).softmax(1)[0].numpy()
    potts = np.eye(4, dtype=np.float32)
    assert np.abs(got - refined(image, unary, -3 * potts, -5 * potts)).max() <= 2e-3
    assert np.abs(got - torch.from_numpy(unary).softmax(0).numpy()).max() > 0.05, "there must be something to do"


@pytest.fixture(scope="module")
def net() -> Net:
    net = caffe_systems.older_fcn8s(CLASSES, 4)
    net.mean_field("coarse", "inference1")
    return net


def test_the_authors_file_gives_what_its_layers_give(net: Net, tmp_path: Path) -> None:
    """NumPy's layers up to the scores, the C++ engine after them."""
    image = photo(40, 33)
    unary = caffe_net.run(caffe_systems.older_fcn8s(CLASSES, 4), (image[..., ::-1] - MEAN).transpose(2, 0, 1))
    model = loaded("crfasrnn", net, tmp_path)
    ws, wb, c = (blob[0, 0] for blob in net.blobs["inference1"])
    assert np.array_equal(model.network.crf.bilateral.numpy(), wb)
    model.network.crf.iterations = 0
    x = torch.from_numpy((image[..., ::-1] - MEAN).transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        assert_same(model.network(x)[0].numpy(), unary)
        model.network.crf.iterations = 10
        got = model.network(x).softmax(1)[0].numpy()
    assert np.abs(got - refined(image, unary.astype(np.float32), c @ ws, c @ wb)).max() <= 2e-3


def test_all_that_does_not_fit_is_in_one_error(net: Net, tmp_path: Path) -> None:
    bad = caffe_systems.older_fcn8s(CLASSES, 4)
    bad.mean_field("coarse", "inference1")
    bad.blobs["inference1"] = [np.zeros((1, 1, 3, 3), np.float32), net.blobs["inference1"][1]]
    bad.blobs["score2"].pop()
    bad.blobs["loss"] = [np.zeros(2, np.float32)]
    with pytest.raises(ModelError) as e:
        loaded("crfasrnn", bad, tmp_path)
    for part in (
        "2 missing: upscore2.bias, crf.compatibility",
        "1 unexpected: loss/0",
        "1 of another shape: crf.spatial (3, 3) for (21, 21)",
        "do not fit crfasrnn",
    ):
        assert part in str(e.value)


def test_the_authors_port_to_pytorch_is_the_same_network(net: Net, tmp_path: Path) -> None:
    """It has the names of the newer FCN-8s, and adds C·m where Caffe's layer subtracts it."""
    model = loaded("crfasrnn", net, tmp_path)
    state = {k: v for k, v in model.network.state_dict().items() if not k.startswith("crf.")}
    crf = model.network.crf
    state |= {
        "crfrnn.spatial_ker_weights": crf.spatial,
        "crfrnn.bilateral_ker_weights": crf.bilateral,
        "crfrnn.compatibility_matrix": -crf.compatibility,
    }
    path = tmp_path / "port.pth"
    torch.save({k: v.detach().clone().contiguous() for k, v in state.items()}, path)
    converted = models.entry("crfasrnn").convert(torch.load(path, weights_only=True))
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in model.network.state_dict().items()}
    assert all(torch.equal(v, model.network.state_dict()[k]) for k, v in converted.items())


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return couplings(path.read_bytes(), str(path))


def test_the_layer_alone_is_read_from_any_file_of_the_network(net: Net, tmp_path: Path) -> None:
    model = loaded("crfasrnn", net, tmp_path)
    ours, layer = tmp_path / "ours.pth", tmp_path / "layer.pth"
    torch.save(model.network.state_dict(), ours)
    torch.save(model.network.crf.state_dict(), layer)
    ws, wb, c = (blob[0, 0] for blob in net.blobs["inference1"])
    for path in (tmp_path / "crfasrnn.caffemodel", ours, layer):
        spatial, bilateral = read(path)
        np.testing.assert_allclose(spatial, c @ ws, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(bilateral, c @ wb, rtol=1e-5, atol=1e-5)
    torch.save({"crf.spatial": torch.zeros(3, 2), "crf.compatibility": torch.zeros(3, 3)}, layer)
    with pytest.raises(ModelError, match=r"1 missing: bilateral\. 1 of another shape: spatial \(3, 2\) for \(3, 3\)"):
        read(layer)
    # A small file that claims a matrix of 4 TB, and one of a training that diverged.
    torch.save({"compatibility": torch.zeros(1_000_000, 1)}, layer)
    with pytest.raises(ModelError, match=r"of another shape: compatibility \(1000000, 1\) for \(1, 1\)"):
        read(layer)
    torch.save({name: torch.full((2, 2), torch.nan) for name in ("spatial", "bilateral", "compatibility")}, layer)
    with pytest.raises(ModelError, match=r"hold NaN or infinity in (spatial|bilateral), "):
        read(layer)


def test_joint_training_reaches_all_layers_and_goes_further_than_with_a_frozen_crf() -> None:
    images = np.stack([photo(40, 40, seed) for seed in range(2)])
    truth = torch.from_numpy((images.mean(-1) > images.mean()).astype(np.int64))
    x = torch.from_numpy((images[..., ::-1] - MEAN).transpose(0, 3, 1, 2).copy())
    build = partial(CRFasRNN, 2, narrow=32)
    losses = {}
    for frozen in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build().train()
            network.crf.requires_grad_(not frozen)
            trained = [p for p in network.parameters() if p.requires_grad]
            # At 20 times this rate the rounding of the processor decides which loss is lower.
            optimizer = torch.optim.Adam(trained, lr=1e-4)
            for _ in range(12):
                optimizer.zero_grad()
                loss = F.cross_entropy(network(x), truth)
                loss.backward()
                optimizer.step()
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert still == (["crf.spatial", "crf.bilateral", "crf.compatibility"] if frozen else [])
        with torch.no_grad():
            losses[frozen] = float(F.cross_entropy(network.eval()(x), truth))
    assert losses[False] < losses[True]
