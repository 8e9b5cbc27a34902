"""The whole job: plan, compute, finish."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import Any

from segbatch.config.base import spec_of
from segbatch.config.job import JobSpec
from segbatch.errors import SegbatchError
from segbatch.logs import LogReporter, Logs, event
from segbatch.operations.finish import RunResult, finish
from segbatch.output.reconcile import Outdated
from segbatch.output.sums import ReceiptSums
from segbatch.planning.claim import publish
from segbatch.planning.plan import make_plan
from segbatch.planning.pools import plan_pools
from segbatch.protocols import Reporter
from segbatch.ray_backend.connection import cluster

logger = logging.getLogger(__name__)


def run(spec: JobSpec | None = None, /, *, reporter: Reporter | None = None, **settings: Any) -> RunResult:
    """Run a job, or resume it: every input record becomes one row of the output, a mask or an error.

    A run may be repeated after any failure, and two runs of one output may overlap: each chunk is committed once.

    Args:
        spec: What to compute, and where; or give the fields of ``JobSpec`` as ``settings``.
        reporter: Receives the progress and the warnings; by default the logger ``segbatch`` does.

    Raises:
        SegbatchError: Committed chunks are kept; the same call resumes.
    """
    spec = spec_of(JobSpec, spec, settings)
    logs = Logs.of(spec.log_format, spec.storage_options)
    reporter = reporter or LogReporter()
    with logs.installed():
        try:
            result = _run(spec, reporter, logs)
        except SegbatchError as e:
            if logs.json:
                event(logger, logging.ERROR, "run failed", message=str(e), exit_code=e.exit_code)
            raise
        finally:
            reporter.closed()
        event(logger, logging.INFO, "run finished", **_fields(result))
    return result


def _fields(result: RunResult) -> dict[str, Any]:
    skipped = {"skipped": result.skipped.to_json()} if result.skipped else {}
    return {
        "output": result.output,
        "records": result.totals.records,
        "errors": result.totals.errors,
        **skipped,
        "exit_code": result.exit_code,
        "seconds": round(result.seconds, 2),
        "chunks": result.chunks,
        "chunks_computed": result.computed,
    }


def _run(spec: JobSpec, reporter: Reporter, logs: Logs) -> RunResult:
    begun = time.monotonic()
    reporter.phase("reading inputs")
    plan = make_plan(spec)
    if retired := Outdated.of(plan.job.shards, plan.ledger).notices(plan.output.store, plan.ledger).get("retired"):
        reporter.warning(retired)
    if plan.is_complete:  # otherwise the executor reports them
        for change in plan.changes:
            reporter.warning(change)
    receipt_sums = ReceiptSums(len(plan.job.model.labels))
    if not plan.is_complete:
        reporter.phase("starting Ray")
        plan.output.store.try_writing()  # before Ray starts
        with cluster(spec) as hardware:
            from segbatch.ray_backend.pipeline import execute  # Ray Data, which has been loaded while Ray started

            plan = publish(plan.with_chunk_size(hardware.cpus).with_precision(hardware))
            pools = plan_pools(spec, hardware, plan.chunks_left(), plan.job.is_refine_bound)
            with closing(execute(plan, pools, reporter, logs)) as receipts:
                for receipt in receipts:
                    receipt_sums.add(receipt)
    reporter.phase("checking the output")
    return finish(plan, receipt_sums, time.monotonic() - begun)
