"""What every network must do, whatever its architecture. Used by ``test_<architecture>.py``.

Untrained weights are enough: sizes, grid, independence and loading do not depend on training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from segbatch import models
from segbatch.models.architecture import Architecture
from segbatch.models.fold import fold_batch_norms
from segbatch.models.runner import TorchModel

SIZES = [(1, 1), (1, 40), (33, 1), (17, 301), (64, 64), (65, 127), (96, 64)]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of random colors with noise: uint8 (height, width, 3), with structure at several scales."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 6, (height, width, 3))
    for block in (8, 32):
        colors = rng.uniform(0, 127, (-(-height // block), -(-width // block), 3))
        image += colors.repeat(block, 0).repeat(block, 1)[:height, :width]
    return image.clip(0, 255).astype(np.uint8)


def calibrate(network: torch.nn.Module) -> None:
    """Give the BatchNorms random scales and the statistics of a few pictures, as training leaves them.

    With the statistics of an untrained network the picture fades away on its way through the layers.
    """
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.2, 0.2)
    pictures = np.stack([photo(128, 128, seed) for seed in range(4)])
    with torch.no_grad():
        network.train()(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 64 - 2)


class ModelContract:
    """Subclass it with ``name`` (of the registry) and ``sizes``, fewer of them for large networks."""

    name: str
    sizes = SIZES

    @pytest.fixture(scope="class")
    @classmethod
    def entry(cls) -> Architecture:
        entry = models.entry(cls.name)
        assert isinstance(entry, Architecture)
        return entry

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, entry: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A file of weights for this network, with BatchNorms that do something."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = entry.network(21)
            calibrate(network)
        path = tmp_path_factory.mktemp("weights") / f"{cls.name}.pth"
        torch.save(network.state_dict(), path)
        return path

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, weights: Path) -> Callable[..., TorchModel]:
        return lambda **options: models.build(cls.name, weights=str(weights), device="cpu", **options)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, build: Callable[..., TorchModel]) -> TorchModel:
        return build()

    def test_scores_have_the_promised_shape_and_dtype(self, model: TorchModel) -> None:
        images = [photo(*size, seed) for seed, size in enumerate(self.sizes)]
        for image, scores in zip(images, model.scores(images), strict=True):
            height, width = image.shape[:2]
            assert scores.shape == (len(model.labels), -(-height // model.stride), -(-width // model.stride))
            assert scores.dtype == np.float32
            assert np.isfinite(scores).all()

    def test_scores_are_the_same_every_time(self, model: TorchModel) -> None:
        images = [photo(65, 97), photo(64, 64)]
        for first, second in zip(model.scores(images), model.scores(images), strict=True):
            assert np.array_equal(first, second)

    def test_an_image_does_not_depend_on_its_batch_mates(self, model: TorchModel) -> None:
        # 65 x 97 and 66 x 98 are padded to one size and share a batch; 64 x 64 does not.
        image, mates = photo(65, 97), [photo(66, 98, 1), photo(64, 64, 2), np.full((65, 97, 3), 255, np.uint8)]
        (alone,) = model.scores([image])
        among = model.scores([mates[0], image, *mates[1:]])[1]
        assert np.abs(alone - among).max() <= 1e-4 * max(1.0, np.abs(alone).max())

    def test_the_order_of_channels_matters(self, model: TorchModel) -> None:
        image = np.zeros((64, 64, 3), np.uint8)
        image[..., 0] = 255
        red, blue = model.scores([image, image[..., ::-1]])
        assert np.abs(red - blue).max() > 1e-3 * np.abs(red).max()

    def test_cells_lie_where_the_grid_says(self, model: TorchModel) -> None:
        """A picture moved left by one padding multiple has its scores moved left by as many cells."""
        multiple, stride = model.geometry.multiple, model.stride
        cells = multiple // stride
        image = photo(2 * multiple + 32, 6 * multiple + 96)
        full, moved = model.scores([image, image[:, multiple:]])

        def likeness(shift: int) -> float:
            width = moved.shape[2] - 2 * cells - 4
            a = full[:, :, shift + 2 : shift + 2 + width]
            b = moved[:, :, 2 : 2 + width]
            a, b = (s - s.mean(axis=(1, 2), keepdims=True) for s in (a, b))
            return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))

        best = max(range(max(0, cells - 2), cells + 3), key=likeness)
        assert best == cells

    def test_folded_batch_norms_compute_the_same(self, entry: Architecture, weights: Path) -> None:
        network = entry.network(21).eval()
        network.load_state_dict(torch.load(weights, weights_only=True))
        x = torch.from_numpy(photo(64, 64)).permute(2, 0, 1)[None] / 128 - 1
        with torch.inference_mode():
            expected = network(x)
            got = fold_batch_norms(network)(x)
        assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))

    def test_bf16_agrees_with_fp32(self, build: Callable[..., TorchModel], model: TorchModel) -> None:
        image = photo(64, 96)
        (exact,), (rounded,) = model.scores([image]), build(precision="bf16").scores([image])
        assert rounded.dtype == np.float32
        assert not np.array_equal(exact, rounded)
        # Random weights amplify rounding, more on some processors than on others; unrelated scores would be near 0.
        assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.8

    def test_description_matches_what_is_built(self, weights: Path, model: TorchModel) -> None:
        info = models.describe(self.name, weights=str(weights))
        assert (info.labels, info.stride, info.digest) == (model.labels, model.stride, model.digest)
        assert info.digest.startswith("sha256:")

    def test_weights_survive_a_round_trip(
        self, entry: Architecture, weights: Path, model: TorchModel, tmp_path: Path
    ) -> None:
        state = torch.load(weights, weights_only=True)
        path = tmp_path / "wrapped.pt"
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
        image = photo(40, 64)
        other = models.build(self.name, weights=str(path), device="cpu")
        assert np.array_equal(other.scores([image])[0], model.scores([image])[0])
        untrained = models.build(self.name, weights="random", device="cpu")
        assert not np.allclose(untrained.scores([image])[0], model.scores([image])[0])
