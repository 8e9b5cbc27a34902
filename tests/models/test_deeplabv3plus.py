"""The built-in network and the weights that come with it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segbatch
from segbatch import models
from segbatch.labels import CAMVID, VOC
from segbatch.models.deeplabv3plus import DeepLabV3Plus
from tests.models.contract import ModelContract, photo

NAME = "deeplabv3plus_mobilenet_v2"
DATA = Path(segbatch.__file__).parents[1].parent / "shared" / "data"


class TestDeepLabV3Plus(ModelContract):
    name = NAME


def upsample(scores: np.ndarray, stride: int, height: int, width: int) -> np.ndarray:
    """Classes (height, width) of the scores, bilinear on the grid that ``interfaces.Model`` defines."""
    up = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], scale_factor=stride, mode="bilinear", align_corners=False
    )
    return up[0, :, :height, :width].argmax(0).numpy()


def test_the_encoder_has_output_stride_16_and_the_scores_4() -> None:
    network = DeepLabV3Plus(5).eval()
    x = torch.zeros(1, 3, 64, 96)
    assert network.backbone(x).shape == (1, 320, 4, 6)
    assert network(x).shape == (1, 5, 16, 24)


@pytest.mark.parametrize(("weights", "classes"), [("voc", VOC), ("camvid", CAMVID)])
def test_the_weights_that_come_with_the_package_load(weights: str, classes: list[str]) -> None:
    model = models.build(NAME, weights=weights, device="cpu")
    assert model.classes == tuple(classes)
    assert model.digest == models.describe(NAME, weights).digest
    (scores,) = model.scores([photo(40, 56)])
    assert scores.shape == (len(classes), 10, 14)


def test_default_weights_are_voc() -> None:
    assert models.describe(NAME).weights == "voc"
    assert models.describe(NAME, "camvid").digest != models.describe(NAME).digest


def _camvid(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    folder = DATA / "camvid" / "val"
    if not folder.is_dir():
        pytest.skip("the development data is not beside the checkout (shared/data/camvid)")
    frames = sorted((folder / "images").iterdir())
    frames = frames[:: max(1, len(frames) // count)]
    return [
        (np.asarray(Image.open(f).convert("RGB")), np.asarray(Image.open(folder / "labels" / f"{f.stem}.png")))
        for f in frames
    ]


@pytest.mark.data
def test_camvid_accuracy_is_what_the_model_card_states() -> None:
    """On every fifth frame of val (all: 0.722, 0.939); a wrong grid, mean or order of channels costs far more."""
    model = models.build(NAME, weights="camvid", device="cpu")
    confusion = np.zeros((11, 11), np.int64)
    frames = _camvid(20)
    for (_, label), scores in zip(frames, model.scores([image for image, _ in frames]), strict=True):
        predicted, known = upsample(scores, model.stride, *label.shape), label != 11
        confusion += np.bincount(label[known] * 11 + predicted[known], minlength=121).reshape(11, 11)
    hits = np.diag(confusion)
    assert hits.sum() / confusion.sum() > 0.92
    assert np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits)) > 0.68


@pytest.mark.data
def test_bf16_gives_the_same_pixels() -> None:
    images = [image for image, _ in _camvid(3)]
    exact, rounded = (
        models.build(NAME, weights="camvid", device="cpu", precision=p).scores(images) for p in ("fp32", "bf16")
    )
    equal = [np.mean(a.argmax(0) == b.argmax(0)) for a, b in zip(exact, rounded, strict=True)]
    assert np.mean(equal) >= 0.995


def test_a_copy_of_named_weights_has_what_was_fitted_to_them(tmp_path: Path) -> None:
    for weights in ("voc", "camvid"):
        named, copy = models.describe(NAME, weights), tmp_path / f"{weights}.safetensors"
        copy.write_bytes((files("segbatch.models") / "data" / named.source).read_bytes())
        described = models.describe(NAME, str(copy))
        for fitted in ("digest", "temperature", "crf"):
            assert getattr(described, fitted) == getattr(named, fitted)
        assert named.temperature > 1
    assert models.describe(NAME, "random").temperature == 1
