"""A nightly run: take the lease, compute what is new of each dataset until the deadline, compare, report."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from segbatch.config.nightly import NightlySpec
from segbatch.errors import Busy, SegbatchError
from segbatch.logs import LogReporter, Logs, event
from segbatch.operations.nightly.advice import Advice
from segbatch.operations.nightly.compute import Context, compute
from segbatch.operations.nightly.judge import judge, judge_delivery
from segbatch.operations.nightly.metrics_file import write_metrics
from segbatch.operations.nightly.record import NightReport, utc
from segbatch.operations.nightly.reports import dates, read_night, remove_night, write_night
from segbatch.operations.nightly.schedule import Schedule
from segbatch.operations.nightly.webhook import post
from segbatch.output.output import Output
from segbatch.protocols import Reporter
from segbatch.storage.lease import Lease, LeaseLost
from segbatch.storage.store import Store

logger = logging.getLogger(__name__)


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
    logs = Logs.of(spec.log_format, spec.storage_options)
    with logs.installed():
        try:
            schedule = Schedule.of(spec, date, only, until, clock)
            report = _run_hours(schedule, clock, reporter or LogReporter(), config)
        except SegbatchError as e:
            if logs.json:
                event(logger, logging.ERROR, "night failed", message=str(e), exit_code=e.exit_code)
            raise
        if report is not None:
            event(logger, logging.INFO, "night finished", **_fields(report))
    return report


def _fields(report: NightReport) -> dict[str, Any]:
    codes = {name: entry.exit_code for name, entry in report.datasets.items()}
    return {"night": report.date, "verdict": report.verdict, "datasets": codes, "exit_code": report.exit_code}


def _run_hours(schedule: Schedule, clock: Callable[[], float], reporter: Reporter, config: str) -> NightReport | None:
    """Run the night while this process holds the lease, and write the metrics; None outside its hours."""
    spec, hours = schedule.spec, schedule.hours
    if not hours.has_begun and schedule.is_tonight:
        reporter.message(
            f"it is not night: a night is from {spec.since:%H:%M} to {spec.until:%H:%M} {spec.timezone}; "
            "nothing is done (--until with a time, or none, starts it now)"
        )
        return None
    state = Store(spec.state, spec.storage_options)
    reporter.phase("reading inputs")
    try:
        with Lease.take(state, spec.lease_seconds, clock, f"the night of {schedule.date}").kept() as lease:
            report = _run_schedule(schedule, state, lease, clock, reporter, config)
    except (Busy, LeaseLost):  # the metrics are those of the run that holds the lease
        raise
    except SegbatchError as e:
        _write_metrics(schedule, None, e.exit_code, clock, reporter)
        raise
    finally:
        reporter.closed()
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
    # An earlier start of this night may have had other datasets.
    report.datasets = {k: v for k, v in report.datasets.items() if k.partition(" ")[0] in schedule.spec.datasets}

    def should_stop() -> bool:
        return lease.lost or (deadline is not None and clock() >= deadline)

    compute(Context(report, lease, should_stop, reporter), schedule, state)
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
