"""What earlier versions wrote can be read by this one; what cannot be resumed says why."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from segbatch.errors import PlanError
from segbatch.models import MODELS
from segbatch.nightly.record import read_night
from segbatch.output.compact import compact
from segbatch.output.inspect import error_rows, summary
from segbatch.output.store import Store
from segbatch.runtime.planning import make_plan
from segbatch.runtime.verify import verify
from segbatch.spec import JobSpec
from segbatch.training.spec import TrainSpec
from segbatch.training.trainer import train

FORMAT1 = Path(__file__).parent / "fixtures/format1"
# name -> (masks, errors, folder of its input)
OUTPUTS = {"out": (8, 1, "in"), "merged": (8, 1, "in"), "img-out": (3, 0, "img-in"), "night-out": (6, 0, "night-in")}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A copy of the fixture, its inputs as old as they were."""
    folder = tmp_path / "corpus"
    shutil.copytree(FORMAT1, folder)
    for name, time in json.loads((folder / "times.json").read_text()).items():
        os.utime(folder / name, ns=(time, time))
    return folder


@pytest.mark.parametrize("name", OUTPUTS)
def test_stats_and_errors_of_an_earlier_output_are_as_they_were(name: str) -> None:
    masks, errors, _ = OUTPUTS[name]
    found = summary(str(FORMAT1 / name))
    assert found.done
    assert (found.totals.records - found.totals.failed, found.totals.failed) == (masks, errors)
    assert len(list(error_rows(str(FORMAT1 / name), 10))) == errors


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_earlier_output_is_verified(name: str, corpus: Path) -> None:
    masks, errors, source = OUTPUTS[name]
    report = verify(str(corpus / name), [str(corpus / source)])
    assert report.problems == []
    assert (report.masks, report.errors) == (masks, errors)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_earlier_output_is_compacted_and_verified_again(name: str, corpus: Path) -> None:
    masks, errors, source = OUTPUTS[name]
    compact(str(corpus / name), 2**20)
    report = verify(str(corpus / name), [str(corpus / source)])
    assert report.problems == []
    assert (report.files, report.masks, report.errors) == (1, masks, errors)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_earlier_output_is_resumed_or_the_refusal_says_why(name: str, corpus: Path) -> None:
    spec: dict[str, Any] = json.loads((corpus / name / "run.json").read_text())["spec"]
    given = {**spec, "inputs": [str(corpus / OUTPUTS[name][2])], "output": str(corpus / name)}
    with pytest.raises(PlanError, match="rows version 2"):
        make_plan(JobSpec.create(**given))


def test_the_nights_of_an_earlier_version_are_read() -> None:
    state = Store(str(FORMAT1 / "state"))
    nights = [read_night(state, date) for date in ("2026-11-30", "2026-12-01")]
    assert [n.datasets["street"].current["records"] for n in nights if n] == [3, 6]


def test_an_earlier_training_is_resumed_or_the_refusal_says_why(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._items, "tiny", "tests.training.tiny:TINY")
    fields = {
        "model": "tiny",
        "ignore": [9],
        "batch_size": 4,
        "epochs": 4,
        "lr": 0.2,
        "crop": (28, 36),
        "scale": (0.8, 1.25),
        "ema": 0.9,
        "validate_every": 1,
        "threads": 1,
        "device": "cpu",
    }
    where = {"inputs": ["train/images"], "val": ["val/images"]}
    for name, folders in where.items():
        fields[name] = [str(corpus / f) for f in folders]
    fields |= {"labels": str(corpus / "train/labels"), "val_labels": str(corpus / "val/labels")}
    with pytest.raises(PlanError, match="inputs"):
        train(TrainSpec.create(**fields, output=str(corpus / "trained")))
