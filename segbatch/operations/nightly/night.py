"""A nightly run: take the lease, compute what is new of each dataset until the deadline, compare, report."""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segbatch.config.nightly import NightlySpec
from segbatch.errors import Busy, SegbatchError
from segbatch.logs import LogReporter
from segbatch.operations.nightly.advice import Advice
from segbatch.operations.nightly.dataset import Work, compute_staged, describe, promote
from segbatch.operations.nightly.delivery import plan_delivered
from segbatch.operations.nightly.judge import judge, judge_delivery, judge_errors
from segbatch.operations.nightly.lookback import Lookback, look_back
from segbatch.operations.nightly.metrics_file import write_metrics
from segbatch.operations.nightly.record import DatasetReport, NightReport, utc
from segbatch.operations.nightly.reports import dates, read_night, remove_night, write_night
from segbatch.operations.nightly.schedule import Schedule
from segbatch.operations.nightly.webhook import post
from segbatch.output.output import Output
from segbatch.protocols import Reporter
from segbatch.storage.lease import Lease, LeaseLost
from segbatch.storage.store import Store
from segbatch.text import redact


def run_night(
    spec: NightlySpec,
    *,
    date: datetime.date | None = None,
    only: Sequence[str] = (),
    until: str | None = None,
    clock: Callable[[], float] = time.time,
    reporter: Reporter | None = None,
    config: str = "CONFIG",
) -> NightReport | None:
    """Compute what is new of several datasets until the deadline, compare it with earlier nights, and record it.

    A dataset that fails is an entry with exit code 1 or 2, and the others continue.

    Args:
        spec: The configuration.
        date: Backfill this date, for the datasets that have ``{date}`` in their inputs.
        only: Names of datasets; all unless given.
        until: Another deadline than that of ``spec``; "none" for none.
        clock: Returns Unix time.
        reporter: Receives progress and messages; by default the logger ``segbatch`` does.
        config: The file of ``spec``, for the commands in the summary.

    Returns:
        The report; None outside the hours of a night, when nothing is done.

    Raises:
        Busy: Another run holds the lease.
        LeaseLost: Another run has taken it over.
        SpecError: The options do not fit the configuration.
        OutputError: The state cannot be read or written.
    """
    reporter = reporter or LogReporter()
    schedule = Schedule.of(spec, date, only, until, clock)
    spec, hours = schedule.spec, schedule.hours
    if not hours.has_begun and date in (None, hours.date):
        reporter.message(
            f"it is not night: a night is from {spec.since:%H:%M} to {spec.until:%H:%M} {spec.timezone}; "
            "nothing is done (--until with a time, or none, starts it now)"
        )
        return None
    state = Store(spec.state, spec.storage_options)
    try:
        with Lease.take(state, spec.lease_seconds, clock, f"the night of {schedule.date}").kept() as lease:
            report = _run_schedule(schedule, state, lease, clock, reporter, config)
    except (Busy, LeaseLost):  # the metrics are those of the run that holds the lease
        raise
    except SegbatchError as e:
        _write_metrics(schedule, None, e.exit_code, clock, reporter)
        raise
    _write_metrics(schedule, report, report.exit_code, clock, reporter)
    return report


def _write_metrics(
    schedule: Schedule, report: NightReport | None, exit_code: int, clock: Callable[[], float], reporter: Reporter
) -> None:
    """Write the metrics file, but not for a backfilled date: the file is that of the latest night."""
    path = schedule.spec.metrics_file
    if path is None or not schedule.is_tonight:
        return
    try:
        write_metrics(path, schedule.spec, report, exit_code, clock())
    except OSError as e:
        reporter.warning(f"metrics_file: {path} cannot be written: {e.strerror}; the night is not affected")


def _run_schedule(
    schedule: Schedule, state: Store, lease: Lease, clock: Callable[[], float], reporter: Reporter, config: str
) -> NightReport:
    """Compute, compare and publish, while this run holds the lease."""
    date, deadline = str(schedule.date), schedule.hours.deadline
    report = read_night(state, date) or NightReport(date=date, started=utc(clock()))
    report.deadline = utc(deadline) if deadline is not None else None
    report.webhook = ""

    def should_stop() -> bool:
        return lease.lost or (deadline is not None and clock() >= deadline)

    _compute(_Context(report, lease, should_stop, reporter), schedule, state)
    _judge(report, schedule, state)
    _advise(report, Advice(schedule.spec, config))
    report.finished = utc(clock())
    lease.renew()
    _publish(report, schedule, state)
    return report


def _judge(report: NightReport, schedule: Schedule, state: Store) -> None:
    """Compare the night with earlier ones, and add alerts and notes."""
    drift = schedule.spec.drift
    first = drift.reference_from.isoformat() if drift.reference_from else ""
    earlier = [read_night(state, d) for d in reversed(dates(state)) if first <= d < report.date]
    nights = [night for night in earlier if night is not None]
    for name in schedule.names:
        judge(report.datasets[name], name, nights, schedule.spec, schedule.date)
        judge_delivery(report.datasets[name], name, schedule.spec)


def _advise(report: NightReport, advice: Advice) -> None:
    """Add what to do about each alert."""
    for key, entry in report.datasets.items():
        name, _, late = key.partition(" ")
        if name in advice.spec.datasets:
            date = datetime.date.fromisoformat(late or report.date)
            advice.add(entry, name, advice.spec.job_of(name, date), str(date))


def _publish(report: NightReport, schedule: Schedule, state: Store) -> None:
    """Write the report, delete what is older than ``keep_nights``, and post the summary."""
    spec = schedule.spec
    write_night(state, report)
    kept = dates(state)[-spec.keep_nights :]
    for old in dates(state):
        if old < kept[0]:
            remove_night(state, old)
    for name in schedule.names:
        job = spec.job_of(name, schedule.date)
        Output.at(job.output, job.storage_options).delete_retired(before=kept[0])
    if spec.webhook and (spec.webhook.when == "always" or report.exit_code):
        report.webhook = post(spec.webhook, report)
        if report.webhook:
            write_night(state, report)


@dataclass(frozen=True)
class _Context:
    """What the datasets of one night have in common."""

    report: NightReport
    lease: Lease
    should_stop: Callable[[], bool]
    reporter: Reporter


def _compute(context: _Context, schedule: Schedule, state: Store) -> None:
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


def _plan(context: _Context, schedule: Schedule, state: Store) -> tuple[dict[str, Work], dict[str, list[str]]]:
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


def _plan_late(context: _Context, schedule: Schedule, state: Store) -> list[Lookback]:
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


def _run(context: _Context, name: str, work: Work, before: DatasetReport | None) -> None:
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
    for text in (describe(counts), *work.plan.warnings()):
        context.reporter.message(f"{name}: {text}")
    begun = time.monotonic()
    failure: SegbatchError | None = None
    try:
        compute_staged(work, context.reporter, context.should_stop)
    except SegbatchError as e:
        failure = e
        gc.collect()  # actor pools of a failed dataset hold their cores until they are collected
    seconds = time.monotonic() - begun
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


def _fail(context: _Context, name: str, error: SegbatchError) -> None:
    entry = context.report.datasets[name]
    entry.state, entry.message, entry.exit_code = "failed", str(error), 2 if error.exit_code == 2 else 1
    entry.alerts.append(f"failed: {error}")
    context.reporter.message(f"{name}: failed: {error}")
