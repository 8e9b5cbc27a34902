"""Metrics of nightly runs as a file for the textfile collector of node_exporter, where no server outlives a night."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from segbatch.config.nightly import NightlySpec
from segbatch.errors import SpecError
from segbatch.operations.nightly.record import DatasetReport, NightReport

_PREFIX = "segbatch_nightly_"
_HELP = {
    "exit_code": "Exit code of the latest night",
    "end_timestamp_seconds": "Unix time at which the latest night ended",
    "last_success_timestamp_seconds": "Unix time at which the latest night with exit code 0 ended",
    "dataset_exit_code": "Exit code of the dataset in the latest night",
    "dataset_last_success_timestamp_seconds": "Unix time of the latest night in which the dataset had exit code 0",
    "dataset_images": "Images of the new and changed shards of the latest night that have a mask",
    "dataset_errors": "Error rows of the new and changed shards of the latest night",
    "dataset_output_images": "Images in the output that have a mask",
    "dataset_output_errors": "Error rows in the output",
    "dataset_shards_left": "Shards that are left for the next night",
    "dataset_duration_seconds": "Duration of the computation in the latest night",
    "dataset_drift_psi": "Population stability index against earlier nights, by what is compared",
    "dataset_drift_js": "Jensen-Shannon divergence in bits against earlier nights, by what is compared",
}
_VALUES: dict[str, Callable[[DatasetReport], float]] = {
    "dataset_exit_code": lambda e: e.exit_code,
    "dataset_images": lambda e: e.content.images if e.content else 0,
    "dataset_errors": lambda e: e.content.totals.failed if e.content else 0,
    "dataset_output_images": lambda e: e.current.get("records", 0) - e.current.get("errors", 0),
    "dataset_output_errors": lambda e: e.current.get("errors", 0),
    "dataset_shards_left": lambda e: e.shards.get("left", 0),
    "dataset_duration_seconds": lambda e: e.seconds,
}
# A sample: the name of its metric without the prefix, its labels and its value.
_Sample = tuple[str, dict[str, str], float]


def check_metrics_file(spec: NightlySpec) -> None:
    """Raise ``SpecError`` if the metrics file cannot be written."""
    if spec.metrics_file is None:
        return
    folder = Path(spec.metrics_file).parent
    if not folder.is_dir():
        raise SpecError(f"metrics_file: {folder} is not a folder; create it, or set metrics_file to another one")
    if not os.access(folder, os.W_OK):
        raise SpecError(f"metrics_file: {folder} is not writable for this user; set metrics_file to another folder")


def write_metrics(path: str, spec: NightlySpec, night: NightReport | None, exit_code: int, now: float) -> None:
    """Replace the metrics file by that of the night that has just ended, atomically.

    Args:
        path: The file. The times of the last success, and the datasets that are not in ``night``, are kept from it.
        spec: The configuration.
        night: The report; None if the night failed as a whole.
        exit_code: That of the night.
        now: Unix time.

    Raises:
        OSError: The file cannot be written.
    """
    before = list(_read(path))
    samples: list[_Sample] = [("exit_code", {}, exit_code), ("end_timestamp_seconds", {}, now)]
    samples += _last_success("", {}, exit_code == 0, before, now)
    for name in spec.datasets:
        entry = night.datasets.get(name) if night else None
        if entry is None:
            samples += [s for s in before if s[1].get("dataset") == name]
        else:
            samples += _of_dataset(name, entry, before, now)
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for name, labels, value in samples:
        if name not in gauges:
            gauges[name] = Gauge(_PREFIX + name, _HELP[name], list(labels), registry=registry)
        (gauges[name].labels(**labels) if labels else gauges[name]).set(value)
    write_to_textfile(path, registry)


def _of_dataset(name: str, entry: DatasetReport, before: list[_Sample], now: float) -> Iterator[_Sample]:
    labels = {"dataset": name}
    for metric, value in _VALUES.items():
        yield metric, labels, value(entry)
    yield from _last_success("dataset_", labels, entry.exit_code == 0, before, now)
    for finding in entry.drift:
        compared = {**labels, "comparison": str(finding["kind"])}
        yield "dataset_drift_psi", compared, finding["psi"]
        yield "dataset_drift_js", compared, finding["js"]


def _last_success(
    prefix: str, labels: dict[str, str], is_success: bool, before: list[_Sample], now: float
) -> list[_Sample]:
    metric = f"{prefix}last_success_timestamp_seconds"
    return [(metric, labels, now)] if is_success else [s for s in before if s[:2] == (metric, labels)]


def _read(path: str) -> Iterator[_Sample]:
    """Yield the samples of the file; none if it is absent, or is not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        families = list(text_string_to_metric_families(text))
    except (OSError, ValueError):
        return
    for family in families:
        for sample in family.samples:
            if (name := sample.name.removeprefix(_PREFIX)) in _HELP:
                yield name, dict(sample.labels), sample.value
