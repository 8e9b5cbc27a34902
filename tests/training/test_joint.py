"""CRF-as-RNN by ``segbatch train``, from FCN-8s: its mean field is trained too, or kept by ``freeze``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from segbatch.config.training import TrainSpec
from segbatch.models.catalog import zoo
from segbatch.models.weights import CAFFE_BGR
from segbatch.models.zoo import crfasrnn
from segbatch.models.zoo.fcn import FCN
from segbatch.training.network import init_network
from segbatch.training.trainer import train
from tests.training.tiny import LABELS, pictures


def test_joint_training_beats_a_frozen_crf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zheng et al. 2015, sec. 5: on the same images from the same weights, the loss is lower."""
    network = partial(crfasrnn.CRFasRNN, narrow=16)
    monkeypatch.setattr(zoo, "CRFASRNN", replace(zoo.CRFASRNN, network=network, labels=LABELS))
    folder = pictures(tmp_path / "pictures", 4, height=32, width=32)
    torch.manual_seed(0)
    before = FCN(len(LABELS), narrow=16).state_dict()
    before["conv1_1.weight"] /= 100  # random weights keep the scale of gray levels, and are sure of nonsense
    save_file(before, tmp_path / "fcn8s.safetensors")
    (tmp_path / "classes.txt").write_text("\n".join(LABELS.names))

    def train_from(name: str, init: Path, freeze: list[str]) -> Path:
        spec = TrainSpec.create(
            model="crfasrnn",
            inputs=[str(folder / "images")],
            labels=str(folder / "labels"),
            output=str(tmp_path / name),
            ignore=[9],
            init=str(init),
            classes=str(tmp_path / "classes.txt"),
            freeze=freeze,
            batch_size=4,
            epochs=20,
            validate_every=20,
            lr=1e-3,
            reduction="mean",
            momentum=0.9,
            flip=False,
            weights_precision="fp32",
            threads=1,
            device="cpu",
        )
        if name == "begun":
            beginning, _ = init_network(spec, zoo.CRFASRNN, LABELS)
            assert all(torch.equal(beginning.state_dict()[key], value) for key, value in before.items())
        train(spec)
        return tmp_path / name / "weights.safetensors"

    begun = train_from("begun", tmp_path / "fcn8s.safetensors", ["crf"])
    states = {n: load_file(train_from(n, begun, f)) for n, f in (("frozen", ["crf"]), ("joint", []))}
    initial = network(len(LABELS)).crf.state_dict()
    for name, trained in (("frozen", False), ("joint", True)):
        assert all(torch.equal(states[name][f"crf.{key}"], value) != trained for key, value in initial.items())
    losses = {name: loss(network(len(LABELS)), state, folder) for name, state in states.items()}
    assert losses["joint"] < 0.8 * losses["frozen"]


def loss(network: torch.nn.Module, state: dict[str, Any], folder: Path) -> float:
    """Mean cross-entropy on the images, as the network is used: without dropout, with all steps of mean field."""
    network.load_state_dict(state)
    network.eval()
    total = 0.0
    for path in sorted((folder / "images").iterdir()):
        bgr = np.asarray(Image.open(path), np.float32)[:, :, ::-1] - np.float32(CAFFE_BGR.mean)
        labels = torch.from_numpy(np.asarray(Image.open(folder / "labels" / path.name), np.int64))
        with torch.no_grad():
            scores = network(torch.from_numpy(bgr.transpose(2, 0, 1)[None].copy()))
        total += float(cross_entropy(scores, labels[None], ignore_index=9))
    return total / 4
