"""Checkpoints of other versions: what is unknown is ignored, what is newer is refused, the oldest are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from segbatch.config.training import TrainSpec
from segbatch.errors import SegbatchError
from segbatch.storage.store import Store
from segbatch.training import checkpoint
from segbatch.training.checkpoint import HistoryLine, TrainingState
from tests.training.test_objective import NEEDED

SPEC = TrainSpec.create(**NEEDED)


def saved(folder: Path, **changes: Any) -> Store:
    """A checkpoint of ``SPEC`` whose file has other keys than this version writes."""
    store = Store(str(folder))
    line = HistoryLine(update=3, epoch=1.5, loss=0.25, lr=0.1, mean_iou=0.5, pixel_accuracy=0.75, class_iou=[1.0, None])
    state = TrainingState(update=3, network={"w": torch.ones(2)}, optimizer={"state": {0: {}}}, history=[line])
    checkpoint.save(store, SPEC, state)
    plain = torch.load(folder / "checkpoint.pt", weights_only=True)
    out = io.BytesIO()
    torch.save({key: value for key, value in {**plain, **changes}.items() if value is not None}, out)
    store.write("checkpoint.pt", out.getvalue())
    return store


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    state = checkpoint.load(saved(tmp_path), SPEC)
    assert state is not None
    assert (state.update, state.network["w"].tolist(), state.optimizer) == (3, [1, 1], {"state": {0: {}}})
    assert state.history[0].class_iou == [1.0, None]
    assert (tmp_path / "history.jsonl").read_text().endswith('"pixel_accuracy": 0.75, "class_iou": [1.0, null]}\n')


def test_unknown_keys_of_a_later_minor_version_are_ignored(tmp_path: Path) -> None:
    plain = torch.load(tmp_path / "checkpoint.pt", weights_only=True) if saved(tmp_path) else {}
    state = checkpoint.load(saved(tmp_path, format_version="1.7", more=1, state={**plain["state"], "new": 2}), SPEC)
    assert state is not None
    assert state.update == 3


def test_a_checkpoint_without_a_version_and_with_earlier_names_is_read(tmp_path: Path) -> None:
    plain = torch.load(tmp_path / "checkpoint.pt", weights_only=True) if saved(tmp_path) else {}
    state = {key: value for key, value in plain["state"].items() if key != "optimizer"}
    store = saved(tmp_path, format_version=None, written_by=None, state={**state, "optimiser": {"state": {7: {}}}})
    read = checkpoint.load(store, SPEC)
    assert read is not None
    assert read.optimizer == {"state": {7: {}}}


def test_a_newer_major_version_is_refused(tmp_path: Path) -> None:
    store = saved(tmp_path, format_version="2.0", written_by="9.1.0")
    with pytest.raises(SegbatchError, match=r"written by segbatch 9\.1\.0 in format 2\.0.*upgrade"):
        checkpoint.load(store, SPEC)
