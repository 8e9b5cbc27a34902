"""SegNet and SegNet-Basic: sizes, unpooling, parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segbatch import models
from segbatch.labels import CAMVID_LABELS
from segbatch.models.zoo.segnet import SegNet, SegNetBasic
from segbatch.models.zoo.vgg16 import Unpool, pool
from tests.models.narrow import DenseContract, on_meta, parameters, sides


class TestSegNet(DenseContract):
    name = "segnet"


class TestSegNetBasic(DenseContract):
    name = "segnet_basic"


def test_planes_of_camvid_have_the_papers_sizes() -> None:
    found = sides(on_meta(SegNet, 11), 360, 480)
    planes = [(180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]
    assert [found[f"pool{i}"] for i in range(1, 6)] == planes
    assert [found[f"upsample{i}"] for i in range(5, 0, -1)] == [*planes[3::-1], (360, 480)]
    assert found[""] == (360, 480)
    found = sides(on_meta(SegNetBasic, 11), 360, 480)
    assert [found[f"pool{i}"] for i in range(1, 5)] == planes[:4]
    assert [found[f"upsample{i}"] for i in range(4, 0, -1)] == [*planes[2::-1], (360, 480)]


def test_a_frame_of_camvid_is_not_padded() -> None:
    for name in ("segnet", "segnet_basic"):
        entry = models.entry(name)
        (window,) = entry.geometry.windows(360, 480)  # type: ignore[attr-defined]
        assert (window.height, window.width) == (360, 480)
        assert models.describe(name, weights="random").labels == CAMVID_LABELS


def test_layers() -> None:
    network = on_meta(SegNet, 21)
    decoder = [name for block in range(5, 0, -1) for name in network.decoder(block)]
    assert decoder[:3] == ["conv5_3_D", "conv5_2_D", "conv5_1_D"]
    outputs = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]
    assert [network.get_submodule(name).conv.out_channels for name in decoder[:-1]] == outputs
    last = network.conv1_1_D
    assert (last.in_channels, last.out_channels, last.kernel_size, last.padding) == (64, 21, (3, 3), (1, 1))
    basic = on_meta(SegNetBasic, 11)
    convs = [m for m in basic.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convs] == [
        *[(3, 64, 7)], *[(64, 64, 7)] * 7, (64, 11, 1)
    ]  # fmt: skip
    assert (basic.norm.size, basic.norm.alpha, basic.norm.beta, basic.norm.k) == (5, 1e-4, 0.75, 1.0)


def test_parameters() -> None:
    # Two numbers a channel of each BatchNorm: 13 encoders have 4224 channels, 12 decoders 3776.
    encoder, decoder = 14_714_688, 0
    shapes = [(512, 512)] * 5 + [(512, 256)] + [(256, 256)] * 2 + [(256, 128), (128, 128), (128, 64), (64, 64)]
    for inputs, outputs in shapes:
        decoder += (9 * inputs + 1) * outputs + 2 * outputs
    assert parameters(on_meta(SegNet, 11)) == encoder + 2 * 4224 + decoder + (9 * 64 + 1) * 11
    basic = (49 * 3 + 1) * 64 + 7 * (49 * 64 + 1) * 64 + 8 * 2 * 64 + 65 * 11
    assert parameters(on_meta(SegNetBasic, 11)) == basic


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 6), (8, 3)])
def test_unpooling_puts_values_where_their_maxima_were(height: int, width: int) -> None:
    torch.manual_seed(height)
    x = torch.rand(2, 3, height, width) + 1
    pooled, indices = pool(masks=True)(x)
    assert pooled.shape[2:] == (-(-height // 2), -(-width // 2))
    y = Unpool()(pooled, indices, (height, width))
    assert y.shape == x.shape
    assert torch.equal(y[y != 0], x[y != 0])
    assert (y != 0).sum() == pooled.numel()
    if height % 2 == 0 and width % 2 == 0:
        assert torch.equal(y, nn.functional.max_unpool2d(pooled, indices, 2))
    # The first of equal values, as in Caffe.
    flat = torch.zeros(1, 1, 4, 4)
    assert pool(masks=True)(flat)[1].flatten().tolist() == [0, 2, 8, 10]


def test_decoders_of_basic_have_no_relu() -> None:
    torch.manual_seed(0)
    network = SegNetBasic(3, narrow=16).eval()
    seen: list[torch.Tensor] = []
    network.conv_classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(torch.rand(1, 3, 32, 32) * 255)
    assert (seen[0] < 0).any()


def test_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    network = SegNet(3, dropout=0.5, narrow=16)
    x = torch.rand(2, 3, 32, 32) * 255
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
