"""FCN-32s, 16s and 8s: sizes, crops and upsampling as in Caffe."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segbatch.models.weights import CAFFE_BGR
from segbatch.models.zoo.fcn import FCN, BilinearUpsample
from segbatch.models.zoo.receptive_field import Layer, layers_of, receptive_field
from tests.models.narrow import DenseContract, on_meta, parameters, sides


class TestFCN32s(DenseContract):
    name = "fcn32s"


class TestFCN16s(DenseContract):
    name = "fcn16s"


class TestFCN8s(DenseContract):
    name = "fcn8s"


class TestFCN8sAtOnce(DenseContract):
    name = "fcn8s_atonce"


def square(found: dict[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: side for name, (side, other) in found.items() if side == other}


def test_sizes_for_500_pixels() -> None:
    found = square(sides(on_meta(FCN, 21), 500, 500))
    assert [found[n] for n in ("conv1_1", "pool1", "pool2", "pool3", "pool4", "pool5")] == [698, 349, 175, 88, 44, 22]
    assert (found["fc6"], found["score_fr"], found["upscore2"], found["upscore_pool4"]) == (16, 16, 34, 70)
    assert (found["upscore8"], found[""]) == (568, 500)
    assert square(sides(on_meta(FCN, 21, finest=16), 500, 500))["upscore16"] == 560
    assert square(sides(on_meta(FCN, 21, finest=32), 500, 500))["upscore"] == 544


def test_sizes_for_375_pixels() -> None:
    found = square(sides(on_meta(FCN, 21), 375, 375))
    assert [found[n] for n in ("score_fr", "upscore2", "upscore_pool4", "upscore8", "")] == [12, 26, 54, 440, 375]
    assert square(sides(on_meta(FCN, 21, finest=16), 375, 375))["upscore16"] == 432
    assert square(sides(on_meta(FCN, 21, finest=32), 375, 375))["upscore"] == 416


def test_rows_and_columns_are_not_mixed_up() -> None:
    found = sides(on_meta(FCN, 21), 375, 500)
    assert (found["score_fr"], found["upscore8"], found[""]) == ((12, 16), (440, 568), (375, 500))


@pytest.mark.parametrize(("finest", "score_layers"), [(32, 0), (16, 512 * 21 + 21), (8, 768 * 21 + 42)])
def test_parameters(finest: int, score_layers: int) -> None:
    trunk, fc6, fc7, score = 14_714_688, 49 * 512 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 21 + 21
    network = on_meta(FCN, 21, finest=finest)
    assert parameters(network) == trunk + fc6 + fc7 + score + score_layers
    # The upsampling is fixed, but in the file.
    assert not [name for name, _ in network.named_parameters() if name.startswith("upscore")]
    assert network.state_dict()[{32: "upscore", 16: "upscore16", 8: "upscore8"}[finest] + ".weight"].shape == (
        (21, 21, 2 * finest, 2 * finest)
    )


def test_crops_undo_the_padding_of_conv1_1() -> None:
    """Each crop follows from where the scores lie: the calculator finds Caffe's offsets."""
    path = on_meta(FCN, 21).path()
    trunk = layers_of(path)
    pool3, pool4 = trunk[:10], trunk[:14]
    scores, at4, at3 = (receptive_field(layers).center for layers in (trunk, pool4, pool3))

    def first(layers: list[Layer]) -> float:
        return float(receptive_field([*trunk, *layers]).center)

    up2, up2b = Layer(4, 2, transposed=True), Layer(4, 2, transposed=True)
    assert float(scores) == 12.5
    assert (first([up2]) - float(at4)) / 16 == 5
    assert (first([up2, up2b]) - float(at3)) / 8 == 9
    assert first([Layer(64, 32, transposed=True)]) == -19
    assert first([up2, Layer(32, 16, transposed=True)]) == -27
    assert first([up2, up2b, Layer(16, 8, transposed=True)]) == -31


def test_upsampling_is_bilinear_and_by_class() -> None:
    up = BilinearUpsample(2, 16, 8)
    # A plane is reproduced exactly where no border is near.
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    scores = torch.stack([rows + 2 * columns, torch.zeros(6, 7)])[None]
    y = up(scores)
    assert y.shape == (1, 2, 56, 64)
    inner = y[0, 0, 8:48, 8:56]
    expected = (torch.arange(8, 48)[:, None] - 7.5) / 8 + 2 * (torch.arange(8, 56) - 7.5) / 8
    torch.testing.assert_close(inner, expected)
    assert not y[0, 1].any()
    odd = BilinearUpsample(1, 3, 2)
    assert odd.weight[0, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]


def test_at_once_scales_what_it_scores() -> None:
    torch.manual_seed(0)
    staged, at_once = FCN(3, narrow=16).eval(), FCN(3, at_once=True, narrow=16).eval()
    state = {k: v.clone() for k, v in staged.state_dict().items()}
    state["score_pool4.weight"] *= 100
    state["score_pool3.weight"] *= 10000
    missing, unexpected = at_once.load_state_dict(state, strict=False)
    assert (sorted(missing), unexpected) == (["scale_pool3.weight", "scale_pool4.weight"], [])
    x = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        torch.testing.assert_close(at_once(x), staged(x), rtol=1e-3, atol=1e-3)


def test_upsampling_is_not_trained() -> None:
    network = FCN(3, finest=32, narrow=32)
    before = network.upscore.weight.clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.randn(1, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    assert torch.equal(network.upscore.weight, before)
    assert network.score_fr.weight.grad is not None


def test_images_become_bgr_minus_the_mean() -> None:
    a, b = CAFFE_BGR.affine()
    assert a == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(b, [-104.00698793, -116.66876762, -122.67891434])
    assert CAFFE_BGR.bgr
    assert CAFFE_BGR.mean_color() == (123, 117, 104)
