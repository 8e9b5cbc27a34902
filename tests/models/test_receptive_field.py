"""The calculator against what networks really see, and the numbers of the papers."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segbatch.models.zoo.deconvnet import DeconvNet
from segbatch.models.zoo.deeplab_v1 import DeepLab, DeepLabLargeFOV
from segbatch.models.zoo.fcn import FCN
from segbatch.models.zoo.receptive_field import Layer, layers_of, receptive_field
from segbatch.models.zoo.segnet import SegNet, SegNetBasic
from tests.models.narrow import on_meta


@pytest.mark.parametrize(
    ("network", "size", "stride"),
    [(FCN, 404, 32), (DeepLab, 308, 8), (DeepLabLargeFOV, 435, 8), (SegNetBasic, 202, 1), (SegNet, 404, 1)],
)
def test_what_the_networks_see(network: type[nn.Module], size: int, stride: int) -> None:
    field = receptive_field(layers_of(on_meta(network, 21).path()))
    assert (field.size, field.stride) == (size, stride)


def test_vgg16_up_to_pool5_sees_212_pixels_at_stride_32() -> None:
    field = receptive_field(layers_of(on_meta(FCN, 21).trunk()))
    assert (field.size, field.stride) == (212, 32)


def test_a_score_of_deconvnet_sees_the_whole_window() -> None:
    assert receptive_field(layers_of(on_meta(DeconvNet, 21).path())).size >= 2 * 224 - 1


def test_kernels_with_holes_extend_as_the_paper_says() -> None:
    # Chen et al. 2015, table 1: 3 x 3 with rate 12 covers what 7 x 7 with rate 4 does.
    assert Layer(3, dilation=12).extent == Layer(7, dilation=4).extent == 25
    assert Layer(4, dilation=4).extent == 13
    # Their "receptive field" of 128 and 224 pixels: kernel x rate x stride.
    assert (4 * 4 * 8, 7 * 4 * 8) == (128, 224)


LAYERS = st.lists(
    st.builds(Layer, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=4
)


@given(LAYERS)
@settings(max_examples=40, deadline=None)
def test_a_real_network_sees_that_many_pixels_around_that_center(layers: list[Layer]) -> None:
    modules = [
        nn.Conv1d(1, 1, layer.kernel, layer.stride, layer.padding, layer.dilation, bias=False) for layer in layers
    ]
    network = nn.Sequential(*modules).double()
    for p in network.parameters():
        nn.init.ones_(p)
    field = receptive_field(layers)
    x = torch.zeros(1, 1, int(4 * (field.size + field.stride)) + 40, dtype=torch.double, requires_grad=True)
    y = network(x)
    middle = y.shape[2] // 2
    y[0, 0, middle].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero().flatten()
    # Holes before strides may leave the outermost taps alone, never fewer pixels from end to end.
    assert int(seen[-1] - seen[0]) + 1 == field.size
    assert Fraction(int(seen[-1] + seen[0]), 2) == field.center + middle * field.stride


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 1), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_a_transposed_layer_sees_that_many_inputs_at_most(kernel: int, stride: int, padding: int, after: int) -> None:
    layers = [Layer(kernel, stride, padding, transposed=True), Layer(after)]
    network = nn.Sequential(nn.ConvTranspose1d(1, 1, kernel, stride, padding), nn.Conv1d(1, 1, after)).double()
    for p in network.parameters():
        nn.init.ones_(p)
    counts = []
    x = torch.zeros(1, 1, 12, dtype=torch.double, requires_grad=True)
    y = network(x)
    for at in range(y.shape[2] // 3, 2 * y.shape[2] // 3):
        (grad,) = torch.autograd.grad(y[0, 0, at], x, retain_graph=True)
        seen = grad[0, 0].nonzero().flatten()
        counts.append(int(seen[-1] - seen[0]) + 1 if len(seen) else 0)
    assert max(counts) == receptive_field(layers).size


def test_layers_that_are_not_known_or_not_square_are_named() -> None:
    with pytest.raises(ValueError, match="Softmax has no kernel_size"):
        layers_of([nn.Softmax(1)])
    with pytest.raises(ValueError, match=r"Conv2d.kernel_size is \(3, 5\)"):
        layers_of([nn.Conv2d(1, 1, (3, 5))])
