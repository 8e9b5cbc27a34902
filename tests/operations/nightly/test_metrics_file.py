"""The metrics file of nights, as Prometheus' own parser reads it."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from segbatch.config.nightly import NightlySpec
from segbatch.errors import Busy, OutputError, SpecError
from segbatch.operations.nightly.metrics_file import write_metrics
from segbatch.operations.nightly.night import run_night
from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.output.totals import SparseTotals
from segbatch.storage.lease import Lease
from segbatch.storage.store import Store
from tests.operations.nightly.nights import DAY, HOUR, MIDNIGHT
from tests.reporters import Said

ROOT = Path(__file__).resolve().parents[3]
NOW = MIDNIGHT + HOUR


def spec(folder: Path, **more: Any) -> NightlySpec:
    """Two datasets for which nothing was delivered: nights that need no Ray."""
    datasets = {n: {"inputs": f"{folder}/in/{n}-{{date}}", "output": f"{folder}/out/{n}/{{date}}"} for n in "ab"}
    for name in datasets:
        (folder / "in" / f"{name}-2026-11-01").mkdir(parents=True, exist_ok=True)
    fields = {"state": str(folder / "state"), "metrics_file": str(folder / "segbatch.prom"), "datasets": datasets}
    return NightlySpec.create(**fields | more)


def samples(folder: Path) -> dict[str, float]:
    """Name, with labels and without the prefix -> value; every metric has HELP and TYPE."""
    found = {}
    for family in text_string_to_metric_families((folder / "segbatch.prom").read_text()):
        assert (family.type, bool(family.documentation)) == ("gauge", True)
        for sample in family.samples:
            assert sample.name.startswith("segbatch_nightly_")
            labels = ",".join(sample.labels.values())
            found[f"{sample.name.removeprefix('segbatch_nightly_')}{{{labels}}}"] = sample.value
    return found


def test_a_night_in_numbers(tmp_path: Path) -> None:
    totals = SparseTotals(records=9, errors={"decode/X": 2}, classes=[])
    drift = [{"kind": "share of pixels", "psi": 0.5, "js": 0.25, "alert": True}]
    street = DatasetReport(
        output="o",
        exit_code=4,
        totals=totals,
        classes=["x"],
        confidence=[7],
        seconds=12.5,
        shards={"left": 3},
        current={"records": 20, "errors": 5},
        drift=drift,
    )
    night = NightReport(
        date="2026-11-20", started="", datasets={"a": street, "a 2026-11-19": DatasetReport(output="o")}
    )
    write_metrics(str(tmp_path / "segbatch.prom"), spec(tmp_path), night, night.exit_code, NOW)
    assert samples(tmp_path) == {
        "exit_code{}": 4,
        "end_timestamp_seconds{}": NOW,
        "dataset_exit_code{a}": 4,
        "dataset_images{a}": 7,
        "dataset_errors{a}": 2,
        "dataset_output_images{a}": 15,
        "dataset_output_errors{a}": 5,
        "dataset_shards_left{a}": 3,
        "dataset_duration_seconds{a}": 12.5,
        "dataset_drift_psi{share of pixels,a}": 0.5,
        "dataset_drift_js{share of pixels,a}": 0.25,
    }
    assert [p.name for p in tmp_path.glob("*.prom*")] == ["segbatch.prom"]


def test_times_of_success_and_datasets_that_were_left_out_are_kept(tmp_path: Path) -> None:
    def night(number: int, **more: Any) -> dict[str, float]:
        only = more.pop("only", ())
        run_night(spec(tmp_path, **more), clock=lambda: NOW + number * DAY, only=only)
        return samples(tmp_path)

    (tmp_path / "segbatch.prom").write_text("not { a metric\n")
    assert "last_success_timestamp_seconds{}" not in night(0)
    first = night(1, allow_empty=True)
    assert first["last_success_timestamp_seconds{}"] == first["dataset_last_success_timestamp_seconds{a}"] == NOW + DAY
    second = night(2, only=["a"])
    assert (second["exit_code{}"], second["dataset_exit_code{a}"], second["dataset_exit_code{b}"]) == (4, 4, 0)
    assert second["end_timestamp_seconds{}"] == NOW + 2 * DAY
    assert second["last_success_timestamp_seconds{}"] == NOW + DAY
    assert second["dataset_last_success_timestamp_seconds{a}"] == NOW + DAY


def test_a_night_that_fails_as_a_whole_is_written_and_one_that_does_nothing_is_not(tmp_path: Path) -> None:
    run_night(spec(tmp_path, allow_empty=True), clock=lambda: NOW)
    before = samples(tmp_path)
    run_night(spec(tmp_path), clock=lambda: NOW + DAY, date=datetime.date(2026, 11, 18))
    with (
        Lease.take(Store(str(tmp_path / "state")), 300, lambda: NOW + DAY, "a night").kept(),
        pytest.raises(Busy),
    ):
        run_night(spec(tmp_path), clock=lambda: NOW + DAY)
    assert samples(tmp_path) == before
    (tmp_path / "state" / "lease" / "00000009.json").write_text("{}")
    with pytest.raises(OutputError):
        run_night(spec(tmp_path), clock=lambda: NOW + DAY)
    assert samples(tmp_path) == before | {"exit_code{}": 1, "end_timestamp_seconds{}": NOW + DAY}


def test_a_file_that_cannot_be_written_is_named_before_the_work_and_fails_no_night(tmp_path: Path) -> None:
    for name, says in (("segbatch.txt", "ends in .prom"), ("s3://b/x.prom", "on this machine")):
        with pytest.raises(SpecError, match=f"metrics_file: .*{says}"):
            spec(tmp_path, metrics_file=name)
    with pytest.raises(SpecError, match=r"metrics_file: .*/gone is not a folder; create it"):
        run_night(spec(tmp_path, metrics_file=str(tmp_path / "gone" / "x.prom")), clock=lambda: NOW)
    (tmp_path / "x.prom").mkdir()
    warned: list[str] = []
    night = run_night(spec(tmp_path, metrics_file=str(tmp_path / "x.prom")), clock=lambda: NOW, reporter=Said(warned))
    assert night is not None
    assert any("x.prom cannot be written" in text for text in warned)


def test_the_alerts_use_metrics_that_are_written(tmp_path: Path) -> None:
    run_night(spec(tmp_path, allow_empty=True), clock=lambda: NOW)
    written = {name.partition("{")[0] for name in samples(tmp_path)}
    groups = yaml.safe_load((ROOT / "deploy" / "grafana" / "alerts.yaml").read_text())["groups"]
    (rules,) = [group["rules"] for group in groups if group["name"] == "segbatch-nightly"]
    used = {m for rule in rules for m in re.findall(r"segbatch_nightly_(\w+)", rule["expr"])}
    assert used
    assert used <= written
