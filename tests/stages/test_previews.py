"""Previews: which records get one, and what it shows."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from segbatch.codecs import mask_png, photograph
from segbatch.labels import LabelSet
from segbatch.records import Record, Scores, sample_key
from segbatch.refiners.none import NoRefiner
from segbatch.stages.previews import Previewer, PreviewSample
from tests import corpus

LABELS = LabelSet.of(["background", "bright", "dark"])


def scores_of(height: int, width: int, stride: int = 8) -> Scores:
    values = np.random.default_rng(height).normal(size=(2, -(-height // stride), -(-width // stride)))
    return Scores(values.astype(np.float16), np.array([0, 2], np.int16), height, width, stride)


@pytest.mark.parametrize("shape", [(40, 30), (480, 333), (481, 600), (1100, 1500), (3, 2000), (2000, 1)])
def test_the_mask_is_the_networks_own_in_the_size_of_the_photograph(shape: tuple[int, int]) -> None:
    image, scores = np.zeros((*shape, 3), np.uint8), scores_of(*shape)
    preview = Previewer(PreviewSample(1), LABELS).preview("a", image, scores)
    assert preview is not None
    shown, network = Image.open(io.BytesIO(preview.photograph)), mask_png.decode(preview.network)
    assert shown.size == network.shape[::-1]
    assert max(shown.size) == min(480, max(shape))
    whole = NoRefiner().refine(None, scores)[0].astype(np.uint8)
    nearest = Image.fromarray(whole).resize(shown.size, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(network, np.asarray(nearest))


@pytest.mark.parametrize("factor", [1, 4])
def test_the_photograph_is_the_image(factor: int) -> None:
    image = corpus.photograph(0, 480)
    large = np.asarray(Image.fromarray(image).resize((image.shape[1] * factor, image.shape[0] * factor)))
    data = photograph.encode(large)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert shown.shape == image.shape
    assert np.abs(shown.astype(int) - image).mean() < 5
    assert len(data) < 32_000


def test_an_image_that_cannot_be_shown_has_no_preview() -> None:
    assert Previewer(PreviewSample(1), LABELS).preview("a", np.zeros((0, 0, 3), np.uint8), scores_of(8, 8)) is None


def records(count: int, size: int = 100) -> list[Record]:
    return [Record(f"a.tar/{i}", "a.tar", i, bytes(size)) for i in range(count)]


def chunks(of: Sequence[Record]) -> list[Sequence[Record]]:
    return [of[start : start + 256] for start in range(0, len(of), 256)]


@pytest.mark.parametrize(
    "sample",
    [
        PreviewSample(200, records=20_000),
        PreviewSample(200, unknown_bytes=20_000 * 100),
        PreviewSample(200, unknown_bytes=20_000 * 180),  # with labels beside the images
        PreviewSample(200, records=10_000, unknown_bytes=10_000 * 100),
    ],
    ids=str,
)
def test_the_images_with_the_smallest_keys_are_chosen_and_few_more(sample: PreviewSample) -> None:
    everything = records(20_000)
    previewer = Previewer(sample, LABELS)
    chosen = set[str]().union(*(previewer.chosen(chunk) for chunk in chunks(everything)))
    smallest = sorted((r.image_id for r in everything), key=sample_key)[:200]
    assert chosen.issuperset(smallest)
    assert len(chosen) < 650


def test_all_images_of_a_small_job_are_chosen_and_none_without_samples() -> None:
    everything = records(200)
    assert len(Previewer(PreviewSample(200, records=200), LABELS).chosen(everything)) == 200
    assert not Previewer(PreviewSample(0, records=200), LABELS).chosen(everything)
    assert not Previewer(PreviewSample(200, records=200), LABELS).chosen([Record("a", "s", 0)])
