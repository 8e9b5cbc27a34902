"""One image without Ray: the mask of a job, from everything that holds an image."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segbatch
from segbatch.errors import RecordFailure, SpecError
from tests import here
from tests.corpus import encode, photograph, photographs, write_folder

FAST: dict[str, Any] = {"model": "tests.networks:fast", "refiner": "none", "precision": "fp32"}


@pytest.mark.usefixtures("one_thread")
def test_the_mask_is_that_of_a_job_byte_for_byte_with_the_built_in_network(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", photographs(2))
    here.run(here.spec([str(folder)], tmp_path / "out", model="deeplabv3plus_mobilenet_v2", refiner="densecrf"))
    for row in segbatch.open(str(tmp_path / "out")):
        segmentation = segbatch.segment(folder / row.image_id, precision="fp32")
        assert segmentation.png == row.png
        assert (segmentation.classes, segmentation.confidence) == (row.classes, row.confidence)
        segmentation.save(tmp_path / "mask.png")
        assert (tmp_path / "mask.png").read_bytes() == row.png
        assert segmentation.scores.sum(axis=0) == pytest.approx(1, abs=0.2)
        with Image.open(io.BytesIO(segmentation._repr_png_())) as shown:
            assert shown.size == (row.width, row.height)


@pytest.mark.parametrize(
    "given",
    [
        lambda path: path,
        lambda path: str(path),
        lambda path: f"file://{path}",
        lambda path: path.read_bytes(),
        lambda path: Image.open(path),
        lambda path: np.asarray(Image.open(path)),
        lambda path: np.asarray(Image.open(path))[:, ::-1][:, ::-1],
        lambda path: Image.open(path).convert("RGBA"),
        lambda path: Image.open(path).convert("YCbCr"),
    ],
)
def test_an_image_is_a_path_a_uri_bytes_a_pil_image_or_an_array(given: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photograph(0, 60), "PNG"))
    segmentation = segbatch.segment(given(path), **FAST)
    expected = segbatch.segment(path, **FAST)
    assert np.abs(segmentation.image.astype(int) - expected.image.astype(int)).max() <= 4  # YCbCr is rounded
    assert np.mean(segmentation.mask != expected.mask) < 0.05
    assert segmentation.mask.shape == (60, 60)
    assert np.unique(segmentation.mask).tolist() == sorted(c.class_id for c in segmentation.classes)


def test_a_pil_image_is_turned_as_its_file_would_be(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = photograph(1, 60)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    by_path = segbatch.segment(tmp_path / "turned.png", **FAST)
    with Image.open(tmp_path / "turned.png") as image:
        assert segbatch.segment(image, **FAST).png == by_path.png
    assert by_path.image.shape == (pixels.shape[1], pixels.shape[0], 3)


def test_retrained_weights_are_loaded_again(tmp_path: Path) -> None:
    import torch

    from segbatch import models

    def weights(seed: int) -> dict[str, Any]:
        architecture = models.entry("lraspp_mobilenet_v3_large").architecture()
        assert architecture is not None
        torch.manual_seed(seed)
        return architecture.network(21).state_dict()

    settings = {"model": "lraspp_mobilenet_v3_large", "weights": str(tmp_path / "w.pth"), "refiner": "none"}
    masks = []
    for seed in (1, 2):
        torch.save(weights(seed), tmp_path / "w.pth")
        masks.append(segbatch.segment(photograph(0), **settings).scores)
    assert not np.array_equal(*masks)
    assert np.array_equal(segbatch.segment(photograph(0), **settings).scores, masks[1])


def test_what_cannot_be_segmented_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>gone</html>")
    with pytest.raises(RecordFailure, match=r"page.jpg: no JPEG, PNG"):
        segbatch.segment(tmp_path / "page.jpg", **FAST)
    with pytest.raises(RecordFailure, match=r"absent.jpg"):
        segbatch.segment(tmp_path / "absent.jpg", **FAST)
    with pytest.raises(SpecError, match=r"got an array float64 \(4, 4, 3\); give uint8 \(H, W, 3\) RGB"):
        segbatch.segment(np.zeros((4, 4, 3)), **FAST)
    with pytest.raises(SpecError, match="got NoneType; give a path"):
        segbatch.segment(None)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="chunk_size: has no effect on one image"):
        segbatch.segment(photograph(0), chunk_size=3)
    with pytest.raises(SpecError, match="did you mean 'refiner'"):
        segbatch.segment(photograph(0), refinr="none")


def test_the_text_of_a_segmentation_names_its_largest_classes() -> None:
    segmentation = segbatch.segment(photograph(0, 60), **FAST)
    assert repr(segmentation).startswith("Segmentation(60 x 60 pixels: ")
    assert "%" in repr(segmentation)
