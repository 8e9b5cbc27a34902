"""What another value of each setting does to an output that exists: refused, warned of, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segbatch.config.base import effect_of
from segbatch.config.job import JobSpec
from segbatch.crf.torch_mean_field import MeanField
from segbatch.errors import PlanError, SourceError
from segbatch.operations.compact import compact
from segbatch.operations.explain import explain
from segbatch.operations.run import run
from segbatch.operations.verify import verify
from segbatch.output.layout import RUN
from segbatch.output.run_record import RunRecord
from segbatch.planning.claim import establish, publish
from segbatch.planning.plan import make_plan
from segbatch.planning.recorded import recorded_spec
from segbatch.protocols import Reporter
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_tar

VOC = {"model": "deeplabv3plus_mobilenet_v2", "weights": "voc"}
# For each field of JobSpec another value, and settings with which it counts.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "inputs": (["elsewhere"], {}),
    "output": ("./out", {}),
    "format": ("webdataset", {}),
    "image_column": ("image", {}),
    "image_member": ("png", {}),
    "id_column": ("id", {}),
    "uri_column": ("url", {}),
    "key": ("last-dot", {}),
    "storage_options": ({"auto_mkdir": True}, {}),
    "max_pixels": (1000, {}),
    "max_record_bytes": (1000, {}),
    "model": ("tests.networks:slow", {}),
    "weights": ("camvid", VOC),
    "classes": ("blue.json", {"model": "null", "classes": "red.json"}),
    "device": ("cpu", {}),
    "precision": ("bf16", {}),
    "batch_size": (3, {}),
    "prune": (0.1, {}),
    "refiner": ("densecrf", {}),
    "refiner_weights": ("learned.pth", {"refiner": "crfasrnn"}),
    "crf": ({"theta_beta": 4.5}, {"refiner": "densecrf"}),
    "marginal": (True, {"refiner": "densecrf"}),
    "chunk_size": (5, {}),
    "overwrite": (True, {}),
    "retry_errors": (True, {}),
    "max_error_fraction": (0.5, {}),
    "address": ("10.0.0.1:6379", {}),
    "num_cpus": (1, {}),
    "report_samples": (5, {}),
    "segment_actors": (1, {}),
    "refine_actors": (1, {}),
    "num_gpus": (0, {}),
    "threads": (1, {}),
    "stall_seconds": (30, {}),
    "max_worker_bytes": (2**30, {}),
    "log_format": ("json", {}),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("in", "elsewhere"):
        write_tar(tmp_path / name / "a.tar", photographs(3, side=24))
    for name, color in (("red", "#ff0000"), ("blue", "#0000ff")):
        classes = [{"name": "a", "color": "#000000"}, {"name": "b", "color": color}]
        (tmp_path / f"{name}.json").write_text(json.dumps(classes))
    torch.save(MeanField(3).state_dict(), tmp_path / "learned.pth")
    return tmp_path


def spec(**fields: Any) -> JobSpec:
    return here.spec(**{"inputs": ["in"], "output": "out", "precision": "fp32", **fields})


def begun(**fields: Any) -> RunRecord:
    """The output of ``spec``, claimed and with nothing computed."""
    establish(make_plan(spec(**fields)))
    return RunRecord.need(Store("out"))


class Warned(Reporter):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, text: str) -> None:
        self.said.append(text)


def test_every_setting_has_another_value() -> None:
    assert OTHERS.keys() == JobSpec.model_fields.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_a_resume_with_another_value_follows_from_the_effect(name: str, folder: Path) -> None:
    other, fields = OTHERS[name]
    begun(**fields)
    assert make_plan(spec(**fields)).warnings() == []
    changed = spec(**{**fields, name: other})
    effect = effect_of(JobSpec.model_fields[name])
    if effect == "rows":
        with pytest.raises((PlanError, SourceError), match="another --output"):
            make_plan(changed)
    else:
        assert [name in line for line in make_plan(changed).warnings()] == [True] * (effect == "limit")


def test_colors_of_classes_are_part_of_the_identity(folder: Path) -> None:
    begun(model="null", classes="red.json")
    refusal = r'model\.colors \["#000000", "#ff0000"\] there, \["#000000", "#0000ff"\] requested'
    with pytest.raises(PlanError, match=refusal):
        make_plan(spec(model="null", classes="blue.json"))


def test_a_changed_limit_is_told_once_and_holds_for_what_is_left(folder: Path) -> None:
    first = begun(max_pixels=500)
    said = (
        "the latest run of this output had other limits: max_pixels 500 before, 600 now; committed error rows are kept"
    )
    assert f"warning      {said}" in explain(spec(max_pixels=600)).to_text()
    here.run(spec(max_pixels=600))
    record = RunRecord.need(Store("out"))
    assert (record.fingerprint, record.spec["max_pixels"]) == (first.fingerprint, 600)
    assert record.sums().failed == 0  # 24 x 24 pixels
    assert make_plan(spec(max_pixels=600)).warnings() == []
    reporter = Warned()
    run(spec(max_pixels=700), reporter=reporter)  # with nothing left to do
    assert ["max_pixels 600 before, 700 now" in text for text in reporter.said] == [True]
    assert RunRecord.need(Store("out")).spec["max_pixels"] == 700
    assert recorded_spec(record).max_pixels == 600


def test_an_output_is_resumed_whose_identity_has_limits(folder: Path) -> None:
    record = begun()
    record.identity["limits"] = {"max_pixels": 200_000_000, "max_record_bytes": 2**29}
    (folder / "out" / RUN).write_bytes(record.to_bytes())
    here.run(spec())
    assert RunRecord.need(Store("out")).fingerprint == record.fingerprint
    with pytest.raises(PlanError, match=r"different settings: prune 0\.02 there, 0\.1 requested; choose"):
        make_plan(spec(prune=0.1))


def compacted() -> None:
    compact("out", target_bytes=2**20)


def interrupted() -> None:
    """A retry that was killed when it had taken the chunks out, and computed none."""
    plan = make_plan(spec(max_pixels=2000, chunk_size=2, retry_errors=True))
    assert len(plan.retried) == 1
    plan = publish(plan)


@pytest.mark.parametrize("before", [lambda: None, compacted, interrupted], ids=["files", "compacted", "interrupted"])
def test_chunks_with_error_rows_are_computed_again(before: Callable[[], None], folder: Path) -> None:
    (_, large), (_, small) = (photographs(1, side=side)[0] for side in (40, 24))
    write_tar(folder / "in" / "b.tar", [("large.jpg", large), ("small.jpg", small)])
    assert here.run(spec(max_pixels=600, chunk_size=2)).totals.failed == 1
    before()
    retry = spec(max_pixels=2000, chunk_size=2, retry_errors=True)
    outcome = here.run(retry)
    assert (outcome.computed, outcome.totals.records, outcome.totals.failed) == (1, 5, 0)
    assert verify("out", read_input=True).problems == []
    assert make_plan(retry).is_complete
    assert len(list((folder / "out" / "retired").iterdir())) == 1
