"""Windows, batches, tiles and memory, on networks whose right answer is known."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segbatch import models
from segbatch.errors import ModelError, NetworkError, RecordFailure, SpecError
from segbatch.labels import LabelSet
from segbatch.models.runner import TorchModel, is_out_of_memory, resolve_device, supports_bf16
from segbatch.models.tiles import Geometry
from segbatch.models.weights import Preprocess

RAW = Preprocess((0.0, 0.0, 0.0), scale=1.0)


class CellMeans(nn.Module):
    """The mean of R, G and B over each cell: on a ramp of colors, the position of the cell's center."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(stride)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(tuple(x.shape))
        return self.pool(x)


class Starved(CellMeans):
    """Has memory for two images of 64 x 64 at a time."""

    error: Exception = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if x.shape[0] * x.shape[2] * x.shape[3] > 2 * 64 * 64:
            raise self.error
        return y


def model_of(network: nn.Module, geometry: Geometry, batch_size: int = 8, preprocess: Preprocess = RAW) -> TorchModel:
    labels = LabelSet.of(("r", "g", "b"))
    return TorchModel("stub", network, labels, geometry, preprocess, device="cpu", batch_size=batch_size)


def ramp(height: int, width: int) -> np.ndarray:
    """R is the row, G the column, B 7."""
    image = np.full((height, width, 3), 7, np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)
    return image


GEOMETRIES = {
    "padded": Geometry(4, 16),
    "tiled": Geometry(4, 8, halo=8, tile_pixels=32 * 32),
    "fixed window": Geometry(4, 4, window=(64, 80), halo=16),
    "full resolution": Geometry(1, 1, window=(61, 47), halo=5, pad="mean"),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("size", [(64, 64), (120, 200), (121, 203), (1, 250), (250, 3), (17, 30)])
def test_every_cell_shows_its_own_place(geometry: Geometry, size: tuple[int, int]) -> None:
    (scores,) = model_of(CellMeans(geometry.stride), geometry).scores([ramp(*size)])
    s = geometry.stride
    full = tuple(side // s for side in size)  # cells that no padding reaches
    rows, columns = ((np.arange(n) + 0.5) * s - 0.5 for n in full)
    assert scores.shape == (3, -(-size[0] // s), -(-size[1] // s))
    cells = scores[:, : full[0], : full[1]]
    np.testing.assert_allclose(cells[0], np.broadcast_to(rows[:, None], full), atol=1e-3)
    np.testing.assert_allclose(cells[1], np.broadcast_to(columns, full), atol=1e-3)
    np.testing.assert_allclose(scores[2, : full[0], : full[1]], 7)


def test_padding_repeats_the_border_or_is_the_mean() -> None:
    image = np.full((1, 1, 3), 200, np.uint8)
    (edge,) = model_of(CellMeans(4), Geometry(4, 16)).scores([image])
    np.testing.assert_allclose(edge, 200)
    gray = Preprocess((30.0, 20.0, 10.0), scale=1.0, bgr=True)
    (mean,) = model_of(CellMeans(4), Geometry(4, 16, pad="mean"), preprocess=gray).scores([image])
    np.testing.assert_allclose(mean.ravel(), (np.array([170, 180, 190])) / 16)


def test_preprocessing_is_what_it_says() -> None:
    image = np.array([[[10, 20, 30]]], np.uint8)
    vgg = Preprocess((1.0, 2.0, 3.0), (2.0, 2.0, 4.0), scale=1.0, bgr=True)
    (scores,) = model_of(CellMeans(1), Geometry(1, 1), preprocess=vgg).scores([image])
    np.testing.assert_allclose(scores.ravel(), [(30 - 1) / 2, (20 - 2) / 2, (10 - 3) / 4])


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    stride=st.sampled_from([1, 4, 8]),
    factor=st.sampled_from([1, 2, 4]),
    halo=st.integers(0, 100),
    tile=st.integers(0, 200),
)
@settings(deadline=None)
def test_windows_cover_each_cell_once_in_bounded_pieces(
    height: int, width: int, stride: int, factor: int, halo: int, tile: int
) -> None:
    multiple = stride * factor
    geometry = Geometry(stride, multiple, halo=halo, tile_pixels=(4 * multiple + tile) ** 2)
    rows, columns = geometry.grid(height, width)
    covered = np.zeros((rows, columns), int)
    windows = geometry.windows(height, width)
    for w in windows:
        covered[w.rows, w.cols] += 1
        assert w.height % multiple == w.width % multiple == w.top % multiple == w.left % multiple == 0
        assert w.height * w.width <= geometry.tile_pixels
        assert w.top < height
        assert w.left < width
        assert w.top // stride + w.inner_rows.start == w.rows.start
        assert w.left // stride + w.inner_cols.start == w.cols.start
        assert 0 <= w.inner_rows.start < w.inner_rows.stop <= w.height // stride
        assert 0 <= w.inner_cols.start < w.inner_cols.stop <= w.width // stride
    assert (covered == 1).all()
    assert len({(w.height, w.width) for w in windows}) == 1


def test_tiles_see_beyond_what_they_fill() -> None:
    geometry = Geometry(4, 16, halo=64, tile_pixels=512 * 512)
    for w in geometry.windows(3000, 2000):
        if w.top > 0:
            assert w.inner_rows.start * 4 >= 64 - 16
        if w.rows.stop < 750:
            assert w.height - w.inner_rows.stop * 4 >= 64 - 16


def test_tiling_a_network_that_sees_less_than_the_halo_changes_nothing() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, 2, 1))
    image = np.random.default_rng(0).integers(0, 255, (203, 331, 3), np.uint8)
    whole = Geometry(4, 16, halo=16)
    (expected,) = model_of(network, whole).scores([image])
    (tiled,) = model_of(network, dataclasses.replace(whole, tile_pixels=64 * 64)).scores([image])
    np.testing.assert_allclose(tiled, expected, rtol=1e-4, atol=1e-3)


def test_equal_padded_sizes_share_a_batch_and_large_images_fewer() -> None:
    network = CellMeans(4)
    model = model_of(network, Geometry(4, 16), batch_size=3)
    model.scores([ramp(30, 33), ramp(100, 20), ramp(32, 48), ramp(17, 34), ramp(31, 40)])
    assert network.batches == [(3, 3, 32, 48), (1, 3, 32, 48), (1, 3, 112, 32)]
    network.batches.clear()
    model.scores([np.zeros((600, 600, 3), np.uint8)] * 3)
    assert [b[0] for b in network.batches] == [2, 1]


@pytest.mark.parametrize(("precision", "count"), [("fp32", 2), ("bf16", 4)])
def test_without_a_batch_size_a_cpu_takes_what_keeps_the_largest_output_within_32_mib(
    precision: str, count: int
) -> None:
    network = CellMeans(4)
    labels, geometry = LabelSet.of(("r", "g", "b")), Geometry(4, 16, activations=64)
    model = TorchModel("stub", network, labels, geometry, RAW, device="cpu", precision=precision)
    model.scores([np.zeros((256, 256, 3), np.uint8)] * 5 + [np.zeros((600, 600, 3), np.uint8)] * 2)
    full, left = divmod(5, count)
    assert [b[0] for b in network.batches] == [count] * full + [left] + [1, 1]
    network.batches.clear()
    model.scores([np.zeros((32, 32, 3), np.uint8)] * 9)
    assert [b[0] for b in network.batches] == [8, 1]


@pytest.mark.parametrize(
    "name",
    ["deeplabv3plus_mobilenet_v2", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "deeplabv3_resnet50"],
)
def test_the_largest_output_of_a_layer_is_what_the_geometry_says(name: str) -> None:
    model = models.build(name, weights="random", device="cpu")
    assert isinstance(model, TorchModel)
    largest = 0

    def watch(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        largest = max(largest, output.numel()) if isinstance(output, Tensor) else largest

    for module in model.network.modules():
        module.register_forward_hook(watch)
    model.scores([np.zeros((64, 64, 3), np.uint8)])
    assert largest == model.geometry.activations * 64 * 64


@pytest.mark.parametrize("error", [Starved.error, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_batch_that_does_not_fit_is_halved(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Starved, "error", error)
    network = Starved(4)
    images = [np.full((64, 64, 3), i, np.uint8) for i in range(9)]
    scores = model_of(network, Geometry(4, 16)).scores(images)
    assert [s[0, 0, 0] for s in scores] == list(range(9))
    # 8 do not fit, nor 4; from then on two at a time, the ninth alone.
    assert [b[0] for b in network.batches if b[0] > 2] == [8, 4, 4]


def test_an_image_that_does_not_fit_alone_is_one_failed_record() -> None:
    with pytest.raises(RecordFailure) as e:
        model_of(Starved(4), Geometry(4, 16)).scores([np.zeros((200, 300, 3), np.uint8)])
    failure = pickle.loads(pickle.dumps(e.value))
    assert (failure.stage, failure.type) == ("segment", "OutOfMemory")
    assert "200 x 300" in failure.message
    assert "fewer segment_actors" in failure.message


def test_other_errors_of_the_network_pass_through() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    assert not is_out_of_memory(RuntimeError("mat1 and mat2"))
    with pytest.raises(RuntimeError, match="mat1"):
        model_of(Broken(), Geometry(4, 16)).scores([ramp(4, 4)])


def test_scores_that_are_not_finite_are_not_hidden() -> None:
    class Poisoned(CellMeans):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.tensor([1.0, float("nan"), float("inf")]).view(1, 3, 1, 1)

    (scores,) = model_of(Poisoned(4), Geometry(4, 16)).scores([ramp(8, 8)])
    assert np.isfinite(scores[0]).all()
    assert np.isnan(scores[1]).all()
    assert np.isposinf(scores[2]).all()


def test_scores_off_the_grid_are_an_error_of_the_network() -> None:
    with pytest.raises(NetworkError, match=r"\(1, 3, 2, 2\), expected \(1, 3, 4, 4\)"):
        model_of(CellMeans(8), Geometry(4, 16)).scores([ramp(16, 16)])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        [1],
    ],
    ids=["gray", "rgba", "float", "empty", "list"],
)
def test_what_is_not_an_image_is_named(image: object) -> None:
    with pytest.raises(ValueError, match=r"image 1 is .*give uint8"):
        model_of(CellMeans(4), Geometry(4, 16)).scores([ramp(4, 4), image])  # type: ignore[list-item]


def test_no_images_give_no_scores() -> None:
    assert model_of(CellMeans(4), Geometry(4, 16)).scores([]) == []


def test_devices_and_options_are_checked() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(SpecError, match="'gpu' is unknown; give auto"):
        resolve_device("gpu")
    with pytest.raises(ModelError, match=r"cuda:64.*is not available.*cpu or auto"):
        resolve_device("cuda:64")
    with pytest.raises(SpecError, match="precision 'fp8' is unknown"):
        TorchModel("m", CellMeans(4), LabelSet.of("abc"), Geometry(4, 16), RAW, precision="fp8")
    with pytest.raises(SpecError, match="batch_size must be at least 1; got 0"):
        model_of(CellMeans(4), Geometry(4, 16), batch_size=0)
    with pytest.raises(ValueError, match="multiples of stride 8"):
        Geometry(8, 12)
    with pytest.raises(ValueError, match="tile_pixels must be at least 4096"):
        Geometry(4, 16, tile_pixels=100)
    assert isinstance(supports_bf16("cpu"), bool)
