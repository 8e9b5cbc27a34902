"""A night on one page: take the lease, do what is new of each dataset until the deadline, compare, tell."""

from __future__ import annotations

import datetime
import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segbatch.config.nightly import Hours, NightlySpec
from segbatch.errors import SegbatchError, SpecError
from segbatch.logs import LogReporter
from segbatch.operations.nightly.dataset import Work, prepare, promote, work
from segbatch.operations.nightly.judge import judge, judge_errors
from segbatch.operations.nightly.lookback import EarlierDate, earlier_dates, look_back
from segbatch.operations.nightly.record import (
    DatasetReport,
    NightReport,
    dates,
    read_night,
    remove_night,
    utc,
    write_night,
)
from segbatch.operations.nightly.webhook import post
from segbatch.output.output import Output
from segbatch.protocols import Reporter
from segbatch.storage.lease import Lease, LeaseLost, holder
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
) -> NightReport | None:
    """Do one night, or what is left of it, and record it. None outside the hours of a night: nothing is done then.

    ``date`` makes up for another night, for the datasets that have ``{date}`` in their inputs. ``only`` are names of
    datasets. ``until`` replaces that of ``spec``; "none" is no deadline. ``clock`` gives Unix time. A dataset that
    fails is an entry with exit code 1 or 2, and the others go on. Raises ``Busy`` if another night runs,
    ``LeaseLost``, ``SpecError``, ``OutputError`` if the state cannot be read or written.
    """
    reporter = reporter or LogReporter()
    spec, hours, names = _decide(spec, date, only, until, clock)
    if not hours.begun and date in (None, hours.date):
        reporter.message(
            f"it is not night: a night is from {spec.since:%H:%M} to {spec.until:%H:%M} {spec.timezone}; "
            "nothing is done (--until none, or a time, starts all the same)"
        )
        return None
    state = Store(spec.state, spec.storage_options)
    night = (date or hours.date).isoformat()
    with Lease.take(state, spec.lease_seconds, clock, f"the night of {night}").kept() as lease:
        record = read_night(state, night) or NightReport(date=night, started=utc(clock()))
        record.deadline = utc(hours.deadline) if hours.deadline is not None else None
        record.webhook = ""

        def should_stop() -> bool:
            return lease.lost or (hours.deadline is not None and clock() >= hours.deadline)

        late = earlier_dates(spec, names, hours.date, state) if date is None else []
        _datasets(_Context(record, lease, should_stop, reporter), spec, names, late)
        earlier = _earlier(state, night, spec)
        for name in names:
            judge(record.datasets[name], name, earlier, spec, date or hours.date)
        record.finished = utc(clock())
        lease.renew()
        write_night(state, record)
        _forget(spec, state, names, night)
        if spec.webhook and (spec.webhook.when == "always" or record.exit_code):
            record.webhook = post(spec.webhook, record)
            if record.webhook:
                write_night(state, record)
    return record


def _decide(
    spec: NightlySpec,
    date: datetime.date | None,
    only: Sequence[str],
    until: str | None,
    clock: Callable[[], float],
) -> tuple[NightlySpec, Hours, list[str]]:
    """The spec with another end, the night that it is, and the datasets to do."""
    spec = spec if until is None else spec.ending(until)
    hours = spec.hours(clock())
    if date is not None and date > hours.date:
        raise SpecError(f"--date: {date} is yet to come; the night of today is {hours.date}")
    return spec, hours, chosen(spec, only, date if date != hours.date else None)


def explain(
    spec: NightlySpec,
    *,
    date: datetime.date | None = None,
    only: Sequence[str] = (),
    until: str | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """What a night would do now, in words. Writes nothing. Raises what a night would raise before its work."""
    spec, hours, names = _decide(spec, date, only, until, clock)
    state = Store(spec.state, spec.storage_options)
    deadline = f", until {utc(hours.deadline)}" if hours.deadline is not None else ""
    lines = [
        f"{'night':13}{date or hours.date}{deadline}{'' if hours.begun else '; not now: it is not night'}",
        f"{'lease':13}{holder(state, clock) or 'free'}",
    ]
    for name in names:
        found = prepare(spec.job_of(name, date or hours.date), spec.max_removed, look=True)
        lines.append(f"{name:13}{_said(found.counts())}; output {found.output.uri}")
    for earlier in earlier_dates(spec, names, hours.date, state) if date is None else []:
        past = look_back(earlier, dry_run=True)
        if isinstance(past, Work):
            lines.append(f"{earlier.entry:13} {_said(past.counts())}; output {past.output.uri}")
        elif past is not None:
            lines.append(f"{earlier.entry:13} is left as it is: {past}")
    return "\n".join(lines)


def _said(counts: dict[str, int]) -> str:
    """``2 of 90 shards to do: 1 new, 1 changed; 0 gone``."""
    new, changed = f"{counts['new']:,} new", f"{counts['changed']:,} changed"
    return f"{counts['left']:,} of {counts['total']:,} shards to do: {new}, {changed}; {counts['removed']:,} gone"


def chosen(spec: NightlySpec, only: Sequence[str], other_date: datetime.date | None) -> list[str]:
    """Names of the datasets to do. Raises ``SpecError`` for one that is not there, or if none has that date."""
    for name in only:
        if name not in spec.datasets:
            raise SpecError(f"--dataset: there is no {name!r}; there are {', '.join(spec.datasets)}")
    names = [n for n in spec.datasets if not only or n in only]
    if other_date is None:
        return names
    dated = [n for n in names if spec.dated(n)]
    if not dated:
        raise SpecError(
            f"--date: {', '.join(names)} cannot be made up for by date, having no {{date}} in inputs and output; "
            "leave --date out: whatever is new is done"
        )
    return dated


@dataclass(frozen=True)
class _Context:
    """What the datasets of one night have in common."""

    record: NightReport
    lease: Lease
    should_stop: Callable[[], bool]
    reporter: Reporter


def _datasets(context: _Context, spec: NightlySpec, names: list[str], late: Sequence[EarlierDate]) -> None:
    """Plan them all, so that a mistake is found before any work; then do tonight's, and what came late after them."""
    record, before = context.record, dict(context.record.datasets)
    tonight, past = _plan(context, spec, names), _plan_earlier(context, late)
    for name, dataset in [*tonight.items(), *((date.entry, found) for date, found in past if isinstance(found, Work))]:
        _do(context, name, dataset, before.get(name))
    for date, found in past:
        if isinstance(found, Work):
            # Too few, and too much of their own, to be judged for drift.
            judge_errors(record.datasets[date.entry], date.job.max_error_fraction, spec.drift.min_images)
        else:
            record.datasets[date.name].notes.append(f"{date.date} is left as it is: {found}")


def _plan(context: _Context, spec: NightlySpec, names: list[str]) -> dict[str, Work]:
    """What is to do tonight, by the name of its entry in the record."""
    found: dict[str, Work] = {}
    for name in names:
        job = spec.job_of(name, datetime.date.fromisoformat(context.record.date))
        context.record.datasets[name] = DatasetReport(output=Store(job.output, job.storage_options).uri)
        try:
            found[name] = prepare(job, spec.max_removed)
        except SegbatchError as e:
            _fail(context, name, e)
    return found


def _plan_earlier(context: _Context, late: Sequence[EarlierDate]) -> list[tuple[EarlierDate, Work | str]]:
    """What came late for earlier dates, or why one is left as it is; those without news are left out."""
    past: list[tuple[EarlierDate, Work | str]] = []
    for date in late:
        entry = DatasetReport(output=Store(date.job.output, date.job.storage_options).uri)
        try:
            found = look_back(date)
        except SegbatchError as e:
            context.record.datasets[date.entry] = entry
            _fail(context, date.entry, e)
            continue
        if isinstance(found, Work) and not found.has_news:
            continue
        if isinstance(found, Work):
            context.record.datasets[date.entry] = entry
        if found is not None:
            past.append((date, found))
    return past


def _do(context: _Context, name: str, dataset: Work, before: DatasetReport | None) -> None:
    """Compute and promote one dataset, unless no time is left; ``before`` is its entry of an earlier start tonight."""
    record, counts = context.record, dataset.counts()
    if context.should_stop() and counts["left"]:
        record.datasets[name].shards = {**counts, "new": 0, "changed": 0, "removed": 0}
        return
    for said in (_said(counts), *dataset.plan.warnings()):
        context.reporter.message(f"{name}: {said}")
    begun = time.monotonic()
    failure: SegbatchError | None = None
    try:
        work(dataset, context.reporter, context.should_stop)
    except SegbatchError as e:
        failure = e
        gc.collect()  # the pools of a dataset that broke off hold their cores until then
    seconds = time.monotonic() - begun
    try:
        entry = promote(dataset, record.date, context.lease, seconds)
        entry.computed, entry.seconds = dataset.tally.totals.records, seconds if dataset.tally.filenames else 0.0
        if before is not None:
            entry.computed, entry.seconds = entry.computed + before.computed, entry.seconds + before.seconds
        record.datasets[name] = entry
    except LeaseLost:
        raise
    except SegbatchError as e:
        failure = failure or e
    if failure is not None:
        _fail(context, name, failure)


def _fail(context: _Context, name: str, error: SegbatchError) -> None:
    entry = context.record.datasets[name]
    entry.state, entry.message, entry.exit_code = "failed", str(error), 2 if error.exit_code == 2 else 1
    entry.alerts.append(f"failed: {error}")
    context.reporter.message(f"{name}: failed: {error}")


def _earlier(state: Store, night: str, spec: NightlySpec) -> list[NightReport]:
    """Records of the nights to compare with, the last first."""
    first = spec.drift.reference_from.isoformat() if spec.drift.reference_from else ""
    found = [d for d in dates(state) if first <= d < night]
    return [n for n in (read_night(state, d) for d in reversed(found)) if n is not None]


def _forget(spec: NightlySpec, state: Store, names: list[str], night: str) -> None:
    """Remove the records, and the masks that were replaced, of nights before the last ``keep_nights``."""
    kept = dates(state)[-spec.keep_nights :]
    for old in dates(state):
        if old < kept[0]:
            remove_night(state, old)
    for name in names:
        job = spec.job_of(name, datetime.date.fromisoformat(night))
        Output.at(job.output, job.storage_options).delete_retired(before=kept[0])
