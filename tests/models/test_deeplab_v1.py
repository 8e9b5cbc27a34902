"""DeepLab v1: sizes of all three networks, where their scores lie, parameters."""

from __future__ import annotations

import pytest
import torch

from segbatch import models
from segbatch.models.zoo.deeplab_v1 import DeepLab, DeepLabLargeFOV
from segbatch.models.zoo.receptive_field import layers_of, receptive_field
from tests.models.contract import photo
from tests.models.narrow import DenseContract, on_meta, parameters, sides


class TestDeepLabV1(DenseContract):
    name = "deeplab_v1"


class TestDeepLabV1LargeFOV(DenseContract):
    name = "deeplab_v1_largefov"


class TestDeepLabV1MScLargeFOV(DenseContract):
    name = "deeplab_v1_msc_largefov"


def along(network: torch.nn.Module, side: int, names: str) -> list[int]:
    found = sides(network, side, side + 8)
    assert found[""] == (side, side + 8)
    return [found[name][0] for name in names.split()]


def test_basic_sizes() -> None:
    test = along(on_meta(DeepLab, 21), 514, "pool1 pool2 pool3 pool4 pool5 fc6 fc7 fc8")
    assert test == [258, 130, 66, 67, 67, 67, 67, 67]
    network = on_meta(DeepLab, 21, pool4_padding=0)
    assert network.coarse(torch.empty(1, 3, 306, 306, device="meta")).shape == (1, 21, 39, 39)


@pytest.mark.parametrize("multi_scale", [False, True])
def test_large_fov_sizes(multi_scale: bool) -> None:
    network = on_meta(DeepLabLargeFOV, 21, multi_scale=multi_scale)
    assert along(network, 513, "pool1 pool2 pool3 pool4 pool5 pool5a fc6 fc8") == [257, 129, 65, 65, 65, 65, 65, 65]
    assert network.coarse(torch.empty(1, 3, 321, 321, device="meta")).shape == (1, 21, 41, 41)
    if multi_scale:
        names = "data_conv pool1_conv pool2_conv pool3_conv pool4_conv data_fc pool4_ms"
        assert along(network, 513, names) == [65] * 7


@pytest.mark.parametrize("network", [DeepLab, DeepLabLargeFOV])
@pytest.mark.parametrize("side", range(8, 25))
def test_scores_cover_an_image_of_any_size(network: type[torch.nn.Module], side: int) -> None:
    assert sides(on_meta(network, 5), side, 40 - side)[""] == (side, 40 - side)


def test_layers() -> None:
    basic, large = on_meta(DeepLab, 21), on_meta(DeepLabLargeFOV, 21)
    assert (basic.fc6.out_channels, basic.fc6.kernel_size, basic.fc6.dilation) == (4096, (4, 4), (4, 4))
    assert (large.fc6.out_channels, large.fc6.kernel_size, large.fc6.dilation) == (1024, (3, 3), (12, 12))
    assert large.fc7.out_channels == 1024
    for network in (basic, large):
        assert {network.get_submodule(name).dilation for name in network.names(5)} == {(2, 2)}
        assert network.conv4_3.dilation == (1, 1)


def test_parameters() -> None:
    trunk = 14_714_688
    basic = trunk + (512 * 16 + 1) * 4096 + 4097 * 4096 + 4097 * 21
    large = trunk + (512 * 9 + 1) * 1024 + 1025 * 1024 + 1025 * 21
    branches = sum((channels * 9 + 1) * 128 + 129 * 128 + 129 * 21 for channels in (3, 64, 128, 256, 512))
    assert parameters(on_meta(DeepLab, 21)) == basic == 65_140_565
    assert parameters(on_meta(DeepLabLargeFOV, 21)) == large == 20_505_429
    assert parameters(on_meta(DeepLabLargeFOV, 21, multi_scale=True)) == large + branches


def test_scores_lie_where_the_upsampling_puts_them() -> None:
    large = receptive_field(layers_of(on_meta(DeepLabLargeFOV, 21).path()))
    assert (large.center, large.stride) == (-DeepLabLargeFOV.offset, 8)
    # Half a pixel off, as in the authors' network, whose crop of 7 is a whole number.
    basic = receptive_field(layers_of(on_meta(DeepLab, 21).path()))
    assert (float(basic.center), basic.stride, DeepLab.offset) == (-7.5, 8, 7)


def test_the_image_is_padded_by_the_mean_and_scores_interpolated_between_their_pixels() -> None:
    torch.manual_seed(0)
    network = DeepLabLargeFOV(3, narrow=32).eval()
    x = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        coarse, fine = network.coarse(x), network(x)
        torch.testing.assert_close(fine[:, :, ::8, ::8], coarse)
        torch.testing.assert_close(fine[:, :, 4::8, ::8], (coarse[:, :, 1:] + coarse[:, :, :-1]) / 2)
        padded = torch.zeros(1, 3, 33, 41)
        padded[:, :, :30, :38] = x[:, :, :30, :38]
        torch.testing.assert_close(network(x[:, :, :30, :38]), network(padded)[:, :, :30, :38])


def test_every_branch_of_msc_adds_its_scores() -> None:
    torch.manual_seed(1)
    network = DeepLabLargeFOV(3, multi_scale=True, narrow=16).eval()
    x = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        before = network.coarse(x)
        for name in ("data", "pool1", "pool2", "pool3", "pool4"):
            layer = network.get_submodule(f"{name}_ms")
            layer.bias.add_(torch.tensor([1.0, 0.0, -2.0]))
            after = network.coarse(x)
            torch.testing.assert_close(
                after - before, torch.tensor([1.0, 0.0, -2.0])[:, None, None].expand_as(before[0])[None]
            )
            before = after


def test_the_network_of_full_size_runs() -> None:
    model = models.build("deeplab_v1_largefov", weights="random:1", device="cpu")
    (scores,) = model.scores([photo(20, 30)])
    assert (scores.shape, model.stride) == ((21, 20, 30), 1)
    assert models.describe("deeplab_v1_largefov", weights="random").parameters == 20_505_429
