"""Metrics of a running job for Prometheus, exported by each Ray node under these names with the prefix ``ray_``."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import ray
from ray.util.metrics import Counter, Gauge

from segbatch.output.receipt import Receipt


class Metric(NamedTuple):
    """A counter, which Prometheus shows with the suffix ``_total``, or a gauge. Labels have a few dozen values."""

    kind: type[Counter] | type[Gauge]
    labels: tuple[str, ...]
    help: str


METRICS = {
    "segbatch_records": Metric(Counter, ("outcome",), "records committed: outcome is mask or error"),
    "segbatch_errors": Metric(Counter, ("stage", "type"), "records committed as error rows"),
    "segbatch_stage_seconds": Metric(
        Counter, ("stage",), "seconds that workers spent on committed chunks: read, segment, refine, quarantine, commit"
    ),
    "segbatch_bytes": Metric(Counter, ("direction",), "bytes of images read, and of result files written"),
    "segbatch_chunk_retries": Metric(
        Counter, ("stage",), "chunks started again after they crashed a worker; they run in quarantine"
    ),
    "segbatch_chunks_left": Metric(Gauge, (), "chunks that the run has not committed"),
}


def count(name: str, value: float = 1, **labels: str) -> None:
    """Add to a counter. Does nothing where Ray is not running."""
    if value > 0 and ray.is_initialized():
        _instance(name, ray.get_runtime_context().get_job_id()).inc(value, labels)


def gauge(name: str, value: float) -> None:
    """Set a gauge. Does nothing where Ray is not running."""
    if ray.is_initialized():
        _instance(name, ray.get_runtime_context().get_job_id()).set(value)


def committed(receipt: Receipt, seconds: float) -> None:
    """Count a committed chunk. ``seconds`` is how long its commit took."""
    count("segbatch_records", receipt.totals.records - receipt.totals.failed, outcome="mask")
    count("segbatch_records", receipt.totals.failed, outcome="error")
    for key, number in receipt.totals.errors.items():
        stage, _, kind = key.partition("/")
        count("segbatch_errors", number, stage=stage, type=kind)
    for stage, spent in {**receipt.timings, "commit": seconds}.items():
        count("segbatch_stage_seconds", spent, stage=stage)
    count("segbatch_bytes", receipt.size, direction="written")


@functools.cache
def _instance(name: str, job: str) -> Any:
    """Return the metric for this connection to Ray: one that was created for an earlier connection is not exported."""
    metric = METRICS[name]
    return metric.kind(name, metric.help, metric.labels)
