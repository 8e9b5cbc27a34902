"""CRF-as-RNN by ``segbatch train``, from FCN-8s: its mean field learns too, or is left as it is by ``freeze``."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segbatch.models import crfasrnn
from segbatch.models.fcn import FCN
from segbatch.training.network import begin
from segbatch.training.spec import TrainSpec
from segbatch.training.trainer import train
from tests.training.tiny import LABELS, pictures


def test_joint_training_beats_a_frozen_crf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zheng et al. 2015, sec. 5: on the same pictures from the same beginning, the loss ends lower."""
    network = partial(crfasrnn.CRFasRNN, narrow=16)
    monkeypatch.setattr(crfasrnn, "CRFASRNN", replace(crfasrnn.CRFASRNN, network=network, labels=LABELS))
    folder = pictures(tmp_path / "pictures", 4, height=32, width=32)
    before = FCN(len(LABELS), narrow=16).state_dict()
    save_file(before, tmp_path / "fcn8s.safetensors")
    (tmp_path / "classes.txt").write_text("\n".join(LABELS.names))
    losses = {}
    for name, freeze in (("frozen", ["crf"]), ("joint", [])):
        spec = TrainSpec.create(
            model="crfasrnn",
            inputs=[str(folder / "images")],
            labels=str(folder / "labels"),
            output=str(tmp_path / name),
            ignore=[9],
            init=str(tmp_path / "fcn8s.safetensors"),
            classes=str(tmp_path / "classes.txt"),
            freeze=freeze,
            batch_size=4,
            epochs=10,
            validate_every=5,
            lr=1e-3,
            reduction="mean",
            momentum=0.9,
            flip=False,
            weights_precision="fp32",
            threads=1,
            device="cpu",
        )
        beginning, _ = begin(spec, crfasrnn.CRFASRNN, LABELS)
        assert all(torch.equal(beginning.state_dict()[key], value) for key, value in before.items())
        train(spec)
        lines = (tmp_path / name / "history.jsonl").read_text().splitlines()
        losses[name] = json.loads(lines[-1])["loss"]
    begun = network(len(LABELS)).crf.state_dict()
    for name, learnt in (("frozen", False), ("joint", True)):
        state = load_file(tmp_path / name / "weights.safetensors")
        assert all(torch.equal(state[f"crf.{key}"], value) != learnt for key, value in begun.items())
    assert losses["joint"] < losses["frozen"] - 0.01
