"""DeconvNet: sizes, layers, parameters, windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segbatch import models
from segbatch.models.architecture import Architecture
from segbatch.models.fold import fold_batch_norms
from segbatch.models.zoo.deconvnet import DeconvNet
from tests.models.contract import photo
from tests.models.narrow import NarrowContract, on_meta, parameters, sides

SIZES = [(1, 1), (17, 301), (224, 224)]


def batch(count: int) -> torch.Tensor:
    pictures = np.stack([photo(224, 224, seed) for seed in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 110


class TestDeconvNet(NarrowContract):
    name = "deconvnet"
    sizes = SIZES

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, entry: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Weights as in the contract, calibrated at the one size that the network takes."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(3)
            network = entry.network(21)
            for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
                norm.momentum = None
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.2, 0.2)
            network.train()(batch(4))
        path = tmp_path_factory.mktemp("weights") / "deconvnet.pth"
        torch.save(network.state_dict(), path)
        return path

    def test_folded_batch_norms_compute_the_same(self, entry: Architecture, weights: Path) -> None:
        network = entry.network(21).eval()
        network.load_state_dict(torch.load(weights, weights_only=True))
        with torch.inference_mode():
            expected = network(batch(1))
            got = fold_batch_norms(network)(batch(1))
        assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_sizes() -> None:
    found = sides(on_meta(DeconvNet, 21), 224, 224)
    assert [found[f"pool{i}"][0] for i in range(1, 6)] == [112, 56, 28, 14, 7]
    assert (found["fc6"], found["fc7"], found["fc6_deconv"]) == ((1, 1), (1, 1), (7, 7))
    assert [found[f"unpool{i}"][0] for i in range(5, 0, -1)] == [14, 28, 56, 112, 224]
    assert found[""] == (224, 224)


DECODER = {
    "deconv5_1": 512, "deconv5_2": 512, "deconv5_3": 512, "deconv4_1": 512, "deconv4_2": 512, "deconv4_3": 256,
    "deconv3_1": 256, "deconv3_2": 256, "deconv3_3": 128, "deconv2_1": 128, "deconv2_2": 64, "deconv1_1": 64,
    "deconv1_2": 64,
}  # fmt: skip


def test_layers_and_parameters() -> None:
    network = on_meta(DeconvNet, 21)
    total, inputs, norms = 14_714_688, 512, 4224
    for name, outputs in DECODER.items():
        deconv = network.get_submodule(name).conv
        assert isinstance(deconv, nn.ConvTranspose2d)
        assert deconv.weight.shape == (inputs, outputs, 3, 3)
        total += 9 * inputs * outputs + outputs
        norms += outputs
        inputs = outputs
    norms += 4096 + 4096 + 512
    total += (49 * 512 + 1) * 4096 + 4097 * 4096 + 4096 * 512 * 49 + 512 + 65 * 21 + 2 * norms
    assert parameters(network) == total


def test_larger_images_are_seen_through_windows_of_224() -> None:
    geometry = models.entry("deconvnet").geometry  # type: ignore[attr-defined]
    assert {(w.height, w.width) for w in geometry.windows(375, 500)} == {(224, 224)}
    assert {(w.height, w.width) for w in geometry.windows(10, 20)} == {(224, 224)}
