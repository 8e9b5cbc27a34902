"""Two workers of Ray Train, and one that takes the same batches in two passes: the same weights, to rounding."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segbatch.config.training import TrainSpec
from segbatch.errors import SegbatchError
from segbatch.ray_backend.train import train as train
from tests.reporters import Said
from tests.training.tiny import pictures


@pytest.mark.long
@pytest.mark.usefixtures("local_ray")
def test_ray_train_gives_what_one_process_gives(tmp_path: Path) -> None:
    """The built-in network, which the workers' processes know by its name."""
    folder = pictures(tmp_path / "pictures", 3, height=32, width=32)
    fields = {
        "inputs": [str(folder / "images")],
        "labels": str(folder / "labels"),
        "val": [str(folder / "images")],
        "val_labels": str(folder / "labels"),
        "ignore": [9],
        "batch_size": 4,
        "epochs": 3,
        "crop": (32, 32),
        "weights_precision": "fp32",
        "threads": 1,
        "device": "cpu",
        "init": "voc",
        "lr": 0.001,
    }
    alone = train(TrainSpec.create(**fields, output=str(tmp_path / "one"), accumulate=2))
    told: list[str] = []
    together = train(TrainSpec.create(**fields, output=str(tmp_path / "two"), workers=2), reporter=Said(told))
    assert together.updates == alone.updates == 2
    assert any(line.startswith("epoch 2.6667/3: loss") for line in told)
    # Each worker measured a part of the images, and the metric is that of all.
    assert together.pixel_accuracy == pytest.approx(alone.pixel_accuracy, abs=0.05)
    one, two = (load_file(t.weights) for t in (alone, together))
    begun = load_file(str(files("segbatch.models") / "data" / "deeplabv3plus_mobilenet_v2_voc.safetensors"))
    assert (one["classifier.weight"] - begun["classifier.weight"].float()).abs().max() > 1e-4
    for key, value in one.items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_cores_are_refused(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", 1)
    fields = {"inputs": [str(folder / "images")], "labels": str(folder / "labels"), "output": str(tmp_path / "out")}
    with pytest.raises(SegbatchError, match="workers: 9 of 1 cores do not fit on 2 cores"):
        train(TrainSpec.create(**fields, batch_size=9, workers=9, device="cpu"))
