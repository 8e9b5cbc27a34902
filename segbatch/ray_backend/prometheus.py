"""What Prometheus can ask of a running job, on the metrics port of each Ray node: ``ray_`` and the names below."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import ray
from ray.util.metrics import Counter, Gauge

from segbatch.output.receipt import Receipt


class Metric(NamedTuple):
    """``kind`` is Counter (Prometheus then shows ``_total``) or Gauge; no label takes more than some dozen values."""

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
        Counter, ("stage",), "chunks begun again since a worker died over them; they run in quarantine"
    ),
    "segbatch_chunks_left": Metric(Gauge, (), "chunks that the run has still to commit, as the driver knows"),
}


def count(name: str, value: float = 1, **labels: str) -> None:
    """Add to a counter. Does nothing where Ray does not run, and for nothing."""
    if value > 0 and ray.is_initialized():
        _instance(name, ray.get_runtime_context().get_job_id()).inc(value, labels)


def gauge(name: str, value: float) -> None:
    """Set a gauge. Does nothing where Ray does not run."""
    if ray.is_initialized():
        _instance(name, ray.get_runtime_context().get_job_id()).set(value)


def committed(receipt: Receipt, seconds: float) -> None:
    """Count a chunk whose commit took so many seconds."""
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
    """One for each time that this process joins Ray: those of before report to nobody."""
    metric = METRICS[name]
    return metric.kind(name, metric.help, metric.labels)
