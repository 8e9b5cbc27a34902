"""Compute the datasets of a night: plan all of them, then what is new of each, then late files of earlier dates."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

from segbatch.errors import SegbatchError
from segbatch.operations.nightly.dataset import Work, compute_staged, describe, promote
from segbatch.operations.nightly.delivery import plan_delivered
from segbatch.operations.nightly.judge import judge_errors
from segbatch.operations.nightly.lookback import Lookback, look_back
from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.operations.nightly.schedule import Schedule
from segbatch.protocols import Reporter
from segbatch.storage.lease import Lease, LeaseLost
from segbatch.storage.store import Store
from segbatch.text import redact


@dataclass(frozen=True)
class Context:
    """What the datasets of one night have in common.

    Attributes:
        report: The report that receives their entries.
        lease: That of the night.
        should_stop: Whether the lease is lost or the deadline has passed.
        reporter: Receives progress and messages.
    """

    report: NightReport
    lease: Lease
    should_stop: Callable[[], bool]
    reporter: Reporter


def compute(context: Context, schedule: Schedule, state: Store) -> None:
    """Plan all datasets, so that a mistake is found before any work; then compute them, and late files after them."""
    report, before = context.report, dict(context.report.datasets)
    planned, absent = _plan(context, schedule, state)
    late = _plan_late(context, schedule, state)
    for name, work in planned.items():
        _run(context, name, work, before.get(name))
    for name, inputs in absent.items():
        if name not in planned:
            report.datasets[name] = _empty(report.datasets[name], before.get(name))
        report.datasets[name].absent = inputs
    for lookback in late:
        if lookback.work is None:
            report.datasets[lookback.date.name].notes.append(
                f"{lookback.date.date} is left unchanged: {lookback.reason}"
            )
            continue
        entry = lookback.date.entry
        _run(context, entry, lookback.work, before.get(entry))
        # Too few images, and too different from a whole date, to be judged for drift.
        judge_errors(report.datasets[entry], lookback.date.job.max_error_fraction, schedule.spec.drift.min_images)


def _plan(context: Context, schedule: Schedule, state: Store) -> tuple[dict[str, Work], dict[str, list[str]]]:
    """Plan each dataset; one that cannot be planned is an entry that failed.

    Returns:
        The work, and the inputs for which nothing was delivered, by dataset.
    """
    planned: dict[str, Work] = {}
    absent: dict[str, list[str]] = {}
    for name in schedule.names:
        job = schedule.spec.job_of(name, schedule.date)
        context.report.datasets[name] = DatasetReport(output=Store(job.output, job.storage_options).uri)
        try:
            work, missing = plan_delivered(schedule.spec, name, schedule.date, state)
        except SegbatchError as e:
            _fail(context, name, e)
            continue
        if work is not None:
            planned[name] = work
        if missing:
            absent[name] = [redact(uri) for uri in missing]
    return planned, absent


def _empty(entry: DatasetReport, before: DatasetReport | None) -> DatasetReport:
    """Return the entry of a dataset that is not computed: what an earlier start of the night has computed is kept."""
    if before is None or before.state == "failed":
        return entry.model_copy(update={"state": "empty"})
    return before.model_copy(update={"state": "empty", "exit_code": 0, "alerts": [], "notes": [], "examples": []})


def _plan_late(context: Context, schedule: Schedule, state: Store) -> list[Lookback]:
    """Return the earlier dates with late files, and those that are left unchanged for a reason."""
    lookbacks = []
    for date in schedule.late(state):
        entry = DatasetReport(output=Store(date.job.output, date.job.storage_options).uri)
        try:
            lookback = look_back(date, schedule.spec, state)
        except SegbatchError as e:
            context.report.datasets[date.entry] = entry
            _fail(context, date.entry, e)
            continue
        if lookback is None or (lookback.work is not None and not lookback.work.has_news):
            continue
        if lookback.work is not None:
            context.report.datasets[date.entry] = entry
        lookbacks.append(lookback)
    return lookbacks


def _run(context: Context, name: str, work: Work, before: DatasetReport | None) -> None:
    """Compute and promote one dataset, unless no time is left.

    Args:
        context: What the datasets of the night have in common.
        name: Name of its entry.
        work: What is left of it.
        before: Its entry of an earlier start of the same night.
    """
    report, counts = context.report, work.counts()
    if context.should_stop() and counts["left"]:
        report.datasets[name].shards = {**counts, "new": 0, "changed": 0, "removed": 0}
        return
    context.reporter.message(f"{name}: {describe(counts)}")
    begun = time.monotonic()
    failure: SegbatchError | None = None
    try:
        compute_staged(work, context.reporter, context.should_stop)
    except SegbatchError as e:
        failure = e
        gc.collect()  # actor pools of a failed dataset hold their cores until they are collected
    seconds = time.monotonic() - begun
    context.reporter.phase(f"{name}: publishing the complete shards")
    try:
        entry = promote(work, report.date, context.lease, seconds)
        entry.computed, entry.seconds = (
            work.receipt_sums.totals.records,
            seconds if work.receipt_sums.filenames else 0.0,
        )
        if before is not None:
            entry.computed, entry.seconds = entry.computed + before.computed, entry.seconds + before.seconds
        report.datasets[name] = entry
    except LeaseLost:
        raise
    except SegbatchError as e:
        failure = failure or e
    if failure is not None:
        _fail(context, name, failure)


def _fail(context: Context, name: str, error: SegbatchError) -> None:
    entry = context.report.datasets[name]
    entry.state, entry.message, entry.exit_code = "failed", str(error), 2 if error.exit_code == 2 else 1
    entry.alerts.append(f"failed: {error}")
    context.reporter.message(f"{name}: failed: {error}")
