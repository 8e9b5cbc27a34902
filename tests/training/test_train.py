"""Whole trainings of a small network: what they reach, what they leave, and that killing them changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from segbatch import models
from segbatch.codecs import mask_png
from segbatch.config.training import TrainSpec
from segbatch.errors import ModelError, PlanError, SegbatchError, SpecError
from segbatch.evaluation.confusion import Confusion
from segbatch.models import MODELS
from segbatch.training.inputs import open_examples
from segbatch.training.result import TrainingResult
from segbatch.training.step import TrainStep
from segbatch.training.trainer import train
from segbatch.training.validate import confusion
from tests import here
from tests.reporters import Said
from tests.training.tiny import LABELS, pictures

Run = tuple[Path, TrainingResult, list[str]]
SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "ignore": [9],
    "batch_size": 4,
    "epochs": 8,
    "lr": 0.2,
    "crop": (28, 36),
    "scale": (0.8, 1.25),
    "jitter": 0.1,
    "ema": 0.9,
    "balance": "median-frequency",
    "validate_every": 3,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module", autouse=True)
def networks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS.entries, "tiny", "tests.training.tiny:TINY")
        patch.setitem(MODELS.entries, "plain", "tests.training.tiny:PLAIN")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pictures")
    train_folder, val = pictures(folder / "train", 10), pictures(folder / "val", 4, seed=1)
    return {
        "inputs": [str(train_folder / "images")],
        "labels": str(train_folder / "labels"),
        "val": [str(val / "images")],
        "val_labels": str(val / "labels"),
    }


def spec_of(data: dict[str, Any], output: Path, **more: Any) -> TrainSpec:
    return TrainSpec.create(**{**SETTINGS, **data, "output": str(output), **more})


@pytest.fixture(scope="module")
def trained(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    output, told = tmp_path_factory.mktemp("trained"), list[str]()
    return output, train(spec_of(data, output), reporter=Said(told)), told


def test_a_training_writes_weights_that_run_takes(data: dict[str, Any], trained: Run) -> None:
    output, result, told = trained
    assert told[:2] == [
        "labels: 10, all inspected: ground 74.2 %, blue 11.9 %, red 10.6 %; ignored 3.3 % (value 9)",
        "validation labels: 4, all inspected: ground 73.2 %, blue 12.0 %, red 11.5 %; ignored 3.3 % (value 9)",
    ]
    assert told[3].startswith(
        "tiny, 3 classes, from random weights; 10 images, 4 to validate on; 20 updates of 4 on cpu"
    )
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [3.2, 6.4, 8.0]
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert result.mean_iou == max(line["mean_iou"] for line in history)
    assert result.mean_iou is not None
    assert result.mean_iou > 0.6  # of one class everywhere: 0.27
    assert {t.dtype for t in load_file(result.weights).values()} == {torch.float16, torch.int64}
    with Image.open(output / "curves.png") as picture:
        assert picture.width > 900
    record = json.loads((output / "train.json").read_text())
    assert (record["spec"]["model"], record["kept"]["mean_iou"]) == ("tiny", result.mean_iou)


def test_the_metrics_of_the_weights_are_those_of_the_masks_that_run_makes_with_them(
    data: dict[str, Any], trained: Run, tmp_path: Path
) -> None:
    result = trained[1]
    assert models.build("tiny", weights=result.weights, classes=result.classes, device="cpu").labels == LABELS
    fields = {"model": "tiny", "weights": result.weights, "classes": result.classes}
    here.run(here.spec(data["val"], tmp_path, **fields, precision="fp32", batch_size=4, device="cpu"))
    counted = Confusion(3)
    for row in pq.read_table(tmp_path / "masks").to_pylist():
        truth = np.asarray(Image.open(Path(data["val_labels"]) / Path(row["image_id"]).name)).astype(np.int64)
        counted.add(np.where(truth == 9, 255, truth), mask_png.decode(row["mask"]))
    assert (result.mean_iou, result.pixel_accuracy) == (counted.mean_iou, counted.pixel_accuracy)


def test_weights_whose_scores_are_not_finite_are_no_result(data: dict[str, Any], tmp_path: Path) -> None:
    model = models.build("tiny", weights="random", device="cpu")
    model.network.head.bias[1] = float("inf")  # type: ignore[index, union-attr]
    examples, _ = open_examples(spec_of(data, tmp_path), data["val"], data["val_labels"], LABELS)
    with pytest.raises(ModelError, match=r"label .*000\.png: the network's scores hold NaN .* lower --lr"):
        confusion(model, examples, range(4))


def test_a_killed_training_ends_as_if_it_had_not_been(
    data: dict[str, Any],
    trained: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed in the middle, between two validations: no part of the result shows it."""
    updates = 11
    step, done = TrainStep.__call__, iter(range(updates))

    def killed(self: Any, *args: Any) -> float:
        next(done)  # StopIteration, then
        return step(self, *args)

    often = spec_of(data, tmp_path, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", killed)
        with pytest.raises(StopIteration):
            train(often)
    told: list[str] = []
    again = train(spec_of(data, tmp_path, loaders=1), reporter=Said(told))
    assert any(f"resumed after update {updates}" in line for line in told)
    assert again.mean_iou == trained[1].mean_iou
    for name in ("weights.safetensors", "history.jsonl", "classes.txt"):
        assert (tmp_path / name).read_bytes() == (trained[0] / name).read_bytes()
    states = [torch.load(p / "checkpoint.pt", weights_only=True)["state"] for p in (tmp_path, trained[0])]
    assert all((value == states[1]["network"][key]).all() for key, value in states[0]["network"].items())


def test_calibrated_scores_are_those_of_the_classes_as_they_occur(
    data: dict[str, Any], trained: Run, tmp_path: Path
) -> None:
    """The same but for the classifier's bias, which is lower by the logarithm of the weights in the loss."""
    calibrated = load_file(train(spec_of(data, tmp_path, calibrate=True, val=[], val_labels=None)).weights)
    weighted = torch.load(trained[0] / "checkpoint.pt", weights_only=True)["state"]
    logs = torch.tensor(weighted["class_weights"]).log()
    assert logs.abs().max() > 0.3
    for key, value in weighted["average"].items():
        wanted = value - logs if key == "head.bias" else value
        torch.testing.assert_close(calibrated[key].to(value.dtype), wanted, rtol=1e-3, atol=1e-3)


def test_random_numbers_and_threads_of_the_caller_stay(data: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(spec_of(data, tmp_path, epochs=0.4, val=[], val_labels=None, threads=threads + 1))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), expected)


def test_a_part_of_a_training_is_its_beginning(data: dict[str, Any], trained: Run, tmp_path: Path) -> None:
    part = train(spec_of(data, tmp_path, stop_after=3.2))
    assert part.updates == 8
    whole = (trained[0] / "history.jsonl").read_text().splitlines()
    assert (tmp_path / "history.jsonl").read_text().splitlines() == whole[:1]


def test_another_training_is_not_continued(data: dict[str, Any], trained: Run) -> None:
    with pytest.raises(PlanError, match=r"holds another training \(lr: 0.2 then, 0.3 now\).*--overwrite"):
        train(spec_of(data, trained[0], lr=0.3))


def test_nothing_is_done_twice_and_overwrite_starts_again(data: dict[str, Any], tmp_path: Path) -> None:
    short = {"epochs": 1, "val": [], "val_labels": None}
    first = train(spec_of(data, tmp_path, **short))
    assert first.mean_iou is None
    before = (tmp_path / "weights.safetensors").read_bytes()
    told: list[str] = []
    train(spec_of(data, tmp_path, **short), reporter=Said(told))
    assert any("resumed after update 2" in line for line in told)
    assert (tmp_path / "weights.safetensors").read_bytes() == before
    train(spec_of(data, tmp_path, **short, seed=1, overwrite=True))
    assert (tmp_path / "weights.safetensors").read_bytes() != before


def test_a_damaged_checkpoint_says_what_to_do(data: dict[str, Any], trained: Run, tmp_path: Path) -> None:
    shutil.copy(trained[0] / "train.json", tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK" + bytes(100))
    with pytest.raises(SegbatchError, match=r"checkpoint\.pt cannot be read .*remove it, or give --overwrite"):
        train(spec_of(data, tmp_path))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.safetensors", "classes.txt", "train.json", "history.jsonl"])
def test_files_of_somebody_else_are_never_replaced(
    data: dict[str, Any], tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(PlanError, match=f"{name} would be replaced.*choose another --output"):
        train(spec_of(data, tmp_path, overwrite=overwrite))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {name: b"mine"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_passes_one_after_another_are_one_large_pass(data: dict[str, Any], tmp_path: Path, reduction: str) -> None:
    """Without batch normalization and dropout, but for rounding; every image has the same number of known pixels."""
    more = {"model": "plain", "reduction": reduction, "epochs": 2, "crop": None, "scale": (1, 1), "balance": "none"}
    more |= {"weights_precision": "fp32", "lr": 0.1 if reduction == "mean" else 1e-5, "val": [], "val_labels": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.training.tiny.F.dropout", lambda x, *args: x)
        for name, accumulate in (("one", 1), ("two", 2), ("four", 4)):
            train(spec_of(data, tmp_path / name, **more, accumulate=accumulate))
    one, two, four = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two", "four"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(four[key], one[key], rtol=1e-4, atol=1e-6)


def test_an_unreadable_image_ends_no_training(
    data: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = pictures(tmp_path / "damaged", 3)
    (folder / "images" / "001.png").write_bytes(b"<html>")
    short = {"epochs": 2, "inputs": [str(folder / "images")], "labels": str(folder / "labels")}
    train(spec_of(data, tmp_path / "out", **short))
    assert "an image is left out: UnknownFormat" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": "{val}"}, "none of the 10 images .* has a label"),
        ({"val": []}, "val_labels: there are no images for them"),
        ({"val_labels": None}, "val: there are no labels for them; give --val-labels"),
        ({"batch_size": 5, "accumulate": 2}, "5 is not a multiple of workers x accumulate, 1 x 2"),
        ({"model": "deconvnet", "crop": None}, "takes 224 x 224 pixels alone; give --crop 224 224"),
        ({"lr": 1e30, "balance": "none"}, "the loss is (nan|inf) at update .*lower --lr"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_what_is_wrong_is_said(data: dict[str, Any], tmp_path: Path, change: dict[str, Any], says: str) -> None:
    if change.get("labels"):
        change = {"labels": str(pictures(tmp_path / "others", 1, seed=5) / "images")}
        Path(change["labels"], "000.png").rename(Path(change["labels"], "other.png"))
    with pytest.raises(SegbatchError, match=says):
        train(spec_of(data, tmp_path / "out", **change))


def test_labels_of_another_size_are_refused(data: dict[str, Any], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "odd", 2)
    Image.new("L", (7, 5)).save(folder / "labels" / "001.png")
    with pytest.raises(SpecError, match=r"001\.png: label 5x7, image 30x40 \(height x width\)"):
        train(spec_of(data, tmp_path / "out", inputs=[str(folder / "images")], labels=str(folder / "labels")))
