"""Refiners of a user's own, end to end: what they return, what is refused, and what is part of the identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from segbatch.codecs import mask_png
from segbatch.errors import ModelError, NetworkError, PlanError, SpecError
from segbatch.operations.explain import explain
from segbatch.planning.inline import SINGLE_PROCESS
from segbatch.planning.plan import make_plan
from segbatch.planning.stages import refine_config
from tests import here
from tests.corpus import encode, write_folder


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Three images of noise."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (45, 70, 3), np.uint8) for _ in range(3)]
    return str(write_folder(tmp_path / "in", [(f"{i}.png", encode(p, "PNG")) for i, p in enumerate(pixels)]))


def classes_of(output: Path) -> list[list[int]]:
    rows = [row for file in output.glob("masks/*.parquet") for row in pq.read_table(file).to_pylist()]
    return [np.unique(mask_png.decode(row["mask"])).tolist() for row in rows]


def test_a_factory_refines_and_its_weights_and_parameters_are_part_of_the_identity(source: str, tmp_path: Path) -> None:
    weights = tmp_path / "threshold.txt"
    weights.write_text("250")
    fields = {"refiner": "tests.own_refiners:uniform", "marginal": True}
    assert here.run(here.spec([source], tmp_path / "a", **fields)).totals.failed == 0
    assert [len(classes) for classes in classes_of(tmp_path / "a")] == [1, 1, 1]
    trained = here.spec([source], tmp_path / "b", refiner_weights=str(weights), **fields)
    here.run(trained)
    assert all(len(classes) > 1 for classes in classes_of(tmp_path / "b"))
    identity = make_plan(trained).job.identity()["crf"]
    assert identity["threshold"] == 250
    assert identity["weights"].startswith("sha256:")
    assert identity["factory"].startswith("sha256:")
    assert "refiner      tests.own_refiners:uniform: threshold 250.0" in explain(trained).to_text()
    weights.write_text("249")
    with pytest.raises(PlanError, match=r"crf\.threshold 250\.0 there, 249\.0 requested"):
        make_plan(trained)


def test_the_parameters_of_the_crf_do_not_concern_a_users_refiner(source: str, tmp_path: Path) -> None:
    jobs = [
        make_plan(here.spec([source], tmp_path / "out", refiner="tests.own_refiners:without_image", crf=crf)).job
        for crf in ({}, {"theta_alpha": 9.0})
    ]
    assert jobs[0].identity() == jobs[1].identity()
    assert not jobs[0].refiner.needs_image
    assert jobs[0].warnings() == []
    assert jobs[1].warnings() == [
        "crf.theta_alpha has no effect: refiner tests.own_refiners:without_image has no such parameter"
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", r"'absent' does not exist.*nown: .*uniform"),
        ("of_four_classes", r"refiner 'tests\.own_refiners:of_four_classes' is for 4 classes, but model .* has 3"),
    ],
)
def test_a_wrong_name_or_number_of_classes_is_refused(name: str, says: str, source: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=says):
        make_plan(here.spec([source], tmp_path / "out", refiner=f"tests.own_refiners:{name}"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", r"returned object, which lacks refine \(method\)"),
        ("of_set", r"lacks parameters \(mapping of JSON values\)"),
        ("unbuildable", "the factory raised RuntimeError: no license"),
        ("mask_alone", r"returned ndarray; it must return a tuple of two NumPy arrays"),
        ("floats", r"returned float32 \(67, 101\) and float64 \(67, 101\).* the mask int16 \(67, 101\)"),
        ("too_small", r"returned int64 \(66, 101\) .*image of 67 x 101 pixels"),
        ("unknown_class", r"a mask with class 5, of which there are no scores"),
        ("failing", r"raised RuntimeError: not this image for a sample image of 67 x 101 pixels and 3 classes"),
    ],
)
def test_a_refiner_that_breaks_its_contract_is_refused_before_any_work(
    name: str, says: str, source: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=rf"refiner '?tests\.own_refiners:{name}.*{says}") as refused:
        here.run(here.spec([source], tmp_path / "out", refiner=f"tests.own_refiners:{name}"))
    assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_refiner_that_breaks_its_contract_later_stops_the_job(source: str, tmp_path: Path) -> None:
    spec = here.spec([source], tmp_path / "out", refiner="tests.own_refiners:too_small_of_real_images")
    with pytest.raises(NetworkError, match=r"returned int64 \(44, 70\) .* for an image of 45 x 70 pixels"):
        here.run(spec)
    assert not list((tmp_path / "out").glob("masks/*"))


def test_a_worker_refuses_a_refiner_whose_parameters_changed(source: str, tmp_path: Path) -> None:
    plan = make_plan(here.spec([source], tmp_path / "out", refiner="tests.own_refiners:uniform"))
    config = refine_config(plan.job, SINGLE_PROCESS)
    config.build()
    planned = replace(config.planned, parameters={**config.planned.parameters, "threshold": 1.0})
    with pytest.raises(NetworkError, match=r"changed since the job was planned: refiner tests\.own_refiners:uniform"):
        replace(config, planned=planned).build()
