"""Two processes of one group, and one that takes the same batches in two passes: the same weights, to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segbatch.errors import SegbatchError
from segbatch.models import MODELS
from segbatch.runtime.train import train as train_anywhere
from segbatch.training.spec import TrainSpec
from segbatch.training.trainer import train
from tests.training.tiny import pictures

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import json, sys
import torch.distributed as dist
from segbatch.models import MODELS
from segbatch.training.spec import TrainSpec
from segbatch.training.trainer import train

MODELS.add("tiny", "tests.training.tiny:TINY")
fields, meeting, rank = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
print(json.dumps(train(TrainSpec.create(**fields)).mean_iou))
dist.destroy_process_group()
"""


def test_two_workers_learn_what_one_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._items, "tiny", "tests.training.tiny:TINY")
    folder = pictures(tmp_path / "pictures", 5)
    fields = {
        "model": "tiny",
        "inputs": [str(folder / "images")],
        "labels": str(folder / "labels"),
        "val": [str(folder / "images")],
        "val_labels": str(folder / "labels"),
        "ignore": [9],
        "batch_size": 4,
        "epochs": 4,
        "crop": (28, 36),
        "lr": 0.1,
        "validate_every": 2,
        "weights_precision": "fp32",
        "threads": 1,
        "device": "cpu",
    }
    alone = train(TrainSpec.create(**fields, output=str(tmp_path / "one"), accumulate=2))
    arguments = [json.dumps({**fields, "output": str(tmp_path / "two")}), str(tmp_path / "meeting")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments, str(rank)], cwd=ROOT, env=environment, stdout=subprocess.PIPE
        )
        for rank in (0, 1)
    ]
    told = [worker.communicate(timeout=550)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    figures = [json.loads(text.splitlines()[-1]) for text in told]
    # Each measured half of the images, and both have the figure of all.
    assert figures[0] == figures[1]
    assert figures[0] == pytest.approx(alone.mean_iou, abs=0.05)
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        # Statistics of batch normalisation are those of the first worker's images; what is learnt does not use them.
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("local_ray")
def test_ray_train_gives_what_one_process_gives(tmp_path: Path) -> None:
    """The built-in network, which the workers' processes know by its name."""
    folder = pictures(tmp_path / "pictures", 3, height=32, width=32)
    fields = {
        "inputs": [str(folder / "images")],
        "labels": str(folder / "labels"),
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
    alone = train_anywhere(TrainSpec.create(**fields, output=str(tmp_path / "one"), accumulate=2))
    told: list[str] = []
    together = train_anywhere(TrainSpec.create(**fields, output=str(tmp_path / "two"), workers=2), told.append)
    assert together.updates == alone.updates == 2
    assert any(line.startswith("epoch 2.6667/3: loss") for line in told)
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
        train_anywhere(TrainSpec.create(**fields, batch_size=9, workers=9, device="cpu"))
