"""Holes for strides: nothing of what was scored changes, and what lies between is the shifted image's score."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segbatch.models.surgery import turn_strides_into_holes
from segbatch.models.zoo.deeplab_v1 import DeepLab
from segbatch.models.zoo.fcn import FCN
from segbatch.models.zoo.receptive_field import layers_of, receptive_field
from segbatch.models.zoo.vgg16 import VGG16, initialize
from tests.models.narrow import on_meta


def run(path: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    for module in path:
        x = module(x)
        if isinstance(module, nn.Conv2d):
            x = torch.relu(x)
    return x


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_dense_scores_are_the_shifted_sub_sampled_ones(stride: int) -> None:
    torch.manual_seed(stride)
    sparse = FCN(5, narrow=16)
    dense = copy.deepcopy(sparse)
    assert turn_strides_into_holes(dense.path(), stride) == 32 // stride
    # The same from one score to the next, so that shifts by the stride meet the same phases.
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        scores = run(dense.path(), image)
        assert scores.abs().max() > 0
        step = 32 // stride
        for down, right in [(0, 0), (1, 0), (0, step - 1), (1, 1)]:
            # What moves out at one side comes in at the other as the zeros of conv1_1's padding.
            moved = torch.zeros(1, 3, 96 + 64, 128 + 64)
            moved[:, :, 32 - down * stride :, 32 - right * stride :][:, :, :96, :128] = image
            whole = torch.zeros_like(moved)
            whole[:, :, 32:128, 32:160] = image
            expected = run(sparse.path(), moved)
            got = run(dense.path(), whole)[:, :, down::step, right::step]
            # At the very border, inner layers pad with zeros where the other image has features.
            inner = (slice(None), slice(None), slice(0, 3), slice(0, 4))
            if (down, right) != (0, 0):
                inner = (slice(None), slice(None), slice(1, 3), slice(1, 4))
            torch.testing.assert_close(got[inner], expected[inner], rtol=1e-4, atol=1e-4)


def test_without_padding_it_holds_everywhere() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 2), nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2), nn.Conv2d(4, 2, 2)]
    dense = copy.deepcopy(layers)
    assert turn_strides_into_holes(dense, 1) == 4
    image = torch.randn(1, 3, 40, 44)
    scores = run(dense, image)
    assert receptive_field(layers_of(dense)).stride == 1
    for row in range(4):
        for column in range(4):
            expected = run(layers, image[:, :, row:, column:])
            got = scores[:, :, row::4, column::4][:, :, : expected.shape[2], : expected.shape[3]]
            assert got.shape == expected.shape
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_deeplab_follows_from_fcn_and_keeps_its_receptive_field() -> None:
    sparse, dense = on_meta(FCN, 21), on_meta(FCN, 21)
    assert turn_strides_into_holes(dense.path(), 8) == 4
    before, after = (receptive_field(layers_of(network.path())) for network in (sparse, dense))
    assert (before.size, before.stride) == (404, 32)
    assert (after.size, after.stride, after.center) == (404, 8, before.center)
    assert dense.conv5_1.dilation == DeepLab(1, narrow=64).conv5_1.dilation == (2, 2)
    assert dense.fc6.dilation == (4, 4)
    # conv5's pool of 3 x 3 at stride 1 in DeepLab extends as 2 x 2 with a hole of 2.
    assert layers_of([dense.pool5])[0].extent == layers_of([DeepLab(1, narrow=64).pool5])[0].extent == 3


def test_what_cannot_be_done_changes_nothing() -> None:
    network = VGG16(narrow=16)
    initialize(network)
    for stride, says in [(3, "reach 2, not 3"), (64, "multiply to 32 and reach 32, not 64")]:
        with pytest.raises(ValueError, match=says):
            turn_strides_into_holes(network.trunk(), stride)
    with pytest.raises(ValueError, match="AvgPool2d cannot have holes"):
        turn_strides_into_holes([nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1)], 1)
    with pytest.raises(ValueError, match="ConvTranspose2d enlarges"):
        turn_strides_into_holes([nn.ConvTranspose2d(1, 1, 2, 2)], 1)
    assert network.pool1.stride == 2
    assert turn_strides_into_holes(network.trunk(), 32) == 1
