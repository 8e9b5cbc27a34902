"""The search for dense CRF parameters, on images whose best parameters are known."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import segbatch
from segbatch import JobSpec
from segbatch.cli.progress import BarReporter, LineReporter
from segbatch.crf.params import CRFSettings
from segbatch.errors import SpecError
from segbatch.evaluation.crf_search import Trial, Tuning, max_trials, search
from segbatch.operations.tune import tune_crf
from segbatch.protocols import Reporter
from tests.cluster.jobs import rows as output_rows
from tests.reporters import Said


@pytest.fixture
def labeled(tmp_path: Path) -> tuple[Path, Path]:
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
def test_the_best_is_found_and_can_be_run(labeled: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = labeled
    values = np.array(Image.open(labels / "0.png"))
    values[:3] = 217
    Image.fromarray(values).save(labels / "0.png")
    spec = JobSpec.create(inputs=[str(images)], model="tests.networks:fast")
    said: list[str] = []
    found = tune_crf(spec, labels=str(labels), rounds=1, reporter=Said(said))
    assert (found.images, found.failed) == (3, 0)
    scores = [s.mean_iou for s in found.trials]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 28
    assert found.trials[0].mean_iou > found.network.mean_iou + 0.01
    assert len([s for s in said if s.startswith("round")]) == 2
    assert (
        "label value 217: 192 pixels, first in 0.png, do not count; the value is neither a class nor one to --ignore"
        in said
    )
    config = tmp_path / "crf.yaml"
    config.write_text(found.to_yaml())
    best = JobSpec.load(config, inputs=[str(images)], output=str(tmp_path / "out"))
    assert (best.model, best.crf) == ("tests.networks:fast", found.best.to_dict())
    segbatch.run(best)
    assert len(output_rows(tmp_path / "out")) == 3


def reached(crf: CRFSettings) -> Trial:
    """Mean IoU by the parameters alone, highest at (3.5, 25, 2.5, 0)."""
    far = abs(crf.w_bilateral - 3.5) + abs(crf.theta_alpha - 25) / 10 + abs(crf.theta_beta - 2.5) + crf.w_spatial
    return Trial(crf, 1 / (2 + far), 0.5)


def test_the_search_begins_with_the_weights_own_parameters_and_halves_its_steps() -> None:
    measured: list[CRFSettings] = []

    def measure(crfs: Sequence[CRFSettings]) -> list[Trial]:
        measured.extend(crfs)
        return [reached(crf) for crf in crfs]

    base = CRFSettings(w_bilateral=1, theta_gamma=2.0, iterations=4)
    trials = search(base, 2, measure, Reporter())
    assert measured[0] == base
    assert len(set(measured)) == len(measured) == len(trials) <= max_trials(2)
    assert {(crf.theta_gamma, crf.iterations) for crf in measured} == {(2.0, 4)}
    best = trials[0].crf
    assert best is not None
    assert (best.w_bilateral, best.theta_alpha, best.theta_beta, best.w_spatial) == (3.5, 25, 2.5, 0)


def test_no_crf_is_written_where_none_is_better(tmp_path: Path) -> None:
    spec = JobSpec.create(inputs=["in"], weights="s3://b/w.pth?X-Amz-Signature=0123abcd", classes="c.txt", prune=0.1)
    tuning = Tuning(spec, [Trial(CRFSettings(), 0.40, 0.8), Trial(None, 0.30, 0.8)], Trial(None, 0.41, 0.8), 3, 0)
    config = tmp_path / "crf.yaml"
    config.write_text(tuning.to_yaml())
    assert tuning.best is None
    assert "no setting is better than the network alone: mean IoU 0.4000 at best" in tuning.to_yaml()
    assert "0123abcd" not in tuning.to_yaml()
    assert "# without what is secret in the URI; give it in full to run: weights" in tuning.to_yaml()
    found = JobSpec.load(config, inputs=["in"])
    assert (found.refiner, found.weights, found.classes, found.prune) == ("none", "s3://b/w.pth", "c.txt", 0.1)


def test_steps_are_shown_with_an_estimate_and_while_nothing_advances() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = LineReporter(console, every_seconds=0.01)
    lines.phase("searching, images refined", 40)
    lines.advanced(30)
    text = ""
    while text.count("left\n") < 2:
        text = console.file.getvalue()  # type: ignore[attr-defined]
    lines.closed()
    assert re.search(r"searching, images refined: 30 of at most 40, at most \d+ s left\n", text)
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    bar = BarReporter(console)
    bar.phase("running the network, images", 40)
    bar.advanced(10)
    bar.closed()
    assert "running the network, images: 10 of at most 40, at most " in console.file.getvalue()  # type: ignore[attr-defined]


def test_labels_that_cannot_be_paired(labeled: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = labeled
    spec = JobSpec.create(inputs=[str(images)], model="tests.networks:fast")
    for label in labels.iterdir():
        label.rename(label.with_name(f"other-{label.name}"))
    with pytest.raises(SpecError, match=r"none of the 3 images .* labels such as 'other-0.png'"):
        tune_crf(spec, labels=str(labels))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("label", "says"),
    [
        (np.zeros((48, 64, 3), np.uint8), r"labels/0.png is not an image of class ids \(mode RGB\)"),
        (np.zeros((20, 64), np.uint8), r"1 are of another size .* 0.png: label 20x64, image 48x64"),
    ],
)
def test_labels_that_do_not_fit(labeled: tuple[Path, Path], label: np.ndarray, says: str) -> None:
    images, labels = labeled
    Image.fromarray(label).save(labels / "0.png")
    with pytest.raises(SpecError, match=says):
        tune_crf(JobSpec.create(inputs=[str(images)], model="tests.networks:fast"), labels=str(labels), rounds=0)


@pytest.mark.usefixtures("local_ray")
def test_labels_of_which_no_pixel_counts_are_refused(labeled: tuple[Path, Path]) -> None:
    images, labels = labeled
    for label in labels.iterdir():
        Image.fromarray(np.full((48, 64), 217, np.uint8)).save(label)
    with pytest.raises(SpecError, match=r"100.0 % of the pixels of 3 labels hold .* value 217: 100.0 %"):
        tune_crf(JobSpec.create(inputs=[str(images)], model="tests.networks:fast"), labels=str(labels), rounds=0)
