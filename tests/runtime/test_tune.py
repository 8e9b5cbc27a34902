"""The search for dense CRF parameters, on pictures whose right parameters can be told from wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segbatch
from segbatch import JobSpec
from segbatch.errors import SpecError
from segbatch.runtime.tune import tune
from tests.cluster.jobs import rows as output_rows


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """Bright discs on dark ground whose rims the network's cells of 4 pixels miss, and their exact masks."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    y, x = np.mgrid[:48, :64]
    for i in range(3):
        disc = (y - 24) ** 2 + (x - 20 - 10 * i) ** 2 < 15**2
        noise = np.random.default_rng(i).normal(0, 4, (48, 64, 1))
        pixels = (np.where(disc[..., None], 215, 40) + noise).clip(0, 255).repeat(3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
        Image.fromarray(np.where(disc, 2, 0).astype(np.uint8)).save(labels / f"{i}.png")
    return images, labels


@pytest.mark.usefixtures("local_ray")
def test_the_best_is_found_and_can_be_run(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = labelled
    spec = JobSpec.create(inputs=[str(images)], model="tests.networks:fast")
    said: list[str] = []
    found = tune(spec, str(labels), rounds=1, tell=said.append)
    assert (found.images, found.failed) == (3, 0)
    scores = [s.mean_iou for s in found.settings]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 28
    assert found.settings[0].mean_iou > found.network.mean_iou + 0.01
    assert len([s for s in said if s.startswith("round")]) == 2
    config = tmp_path / "crf.yaml"
    config.write_text(found.to_yaml())
    best = JobSpec.load(config, inputs=[str(images)], output=str(tmp_path / "out"), model="tests.networks:fast")
    assert best.crf == found.best
    segbatch.run(best)
    assert len(output_rows(tmp_path / "out")) == 3


def test_labels_that_cannot_be_paired(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = labelled
    spec = JobSpec.create(inputs=[str(images)], model="tests.networks:fast")
    for label in labels.iterdir():
        label.rename(label.with_name(f"other-{label.name}"))
    with pytest.raises(SpecError, match="none of the images has a label"):
        tune(spec, str(labels))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("label", "says"),
    [
        (np.zeros((48, 64, 3), np.uint8), r"labels/0.png is no image of class ids \(mode RGB\)"),
        (np.zeros((20, 64), np.uint8), r"labels/0.png is \(20, 64\), its image .*0.png is \(48, 64\)"),
    ],
)
def test_labels_that_do_not_fit(labelled: tuple[Path, Path], label: np.ndarray, says: str) -> None:
    images, labels = labelled
    Image.fromarray(label).save(labels / "0.png")
    with pytest.raises(SpecError, match=says):
        tune(JobSpec.create(inputs=[str(images)], model="tests.networks:fast"), str(labels), rounds=0)
