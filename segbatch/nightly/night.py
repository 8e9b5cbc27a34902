"""A night on one page: take the lease, do what is new of each dataset until the deadline, compare, tell."""

from __future__ import annotations

import datetime
import gc
import logging
import statistics
import time
from collections.abc import Callable, Sequence

from segbatch.errors import SegbatchError, SpecError
from segbatch.metrics.pixels import Totals
from segbatch.nightly.config import Hours, NightlySpec
from segbatch.nightly.dataset import Work, prepare, settle, work
from segbatch.nightly.drift import Content, compare
from segbatch.nightly.lease import Lease, LeaseLost, holder
from segbatch.nightly.record import (
    DRIFT,
    ERRORS,
    Entry,
    Night,
    dates,
    read_night,
    remove_night,
    utc,
    write_night,
)
from segbatch.nightly.webhook import post
from segbatch.output.owned import remove_owned, retired
from segbatch.output.store import Store
from segbatch.runtime.progress import Progress

logger = logging.getLogger(__name__)

_SLOW = 0.5


def run_night(
    spec: NightlySpec,
    *,
    date: datetime.date | None = None,
    only: Sequence[str] = (),
    until: str | None = None,
    clock: Callable[[], float] = time.time,
    progress: Callable[[], Progress] = Progress,
    tell: Callable[[str], None] = lambda text: None,
) -> Night | None:
    """Do one night, or what is left of it, and record it. None outside the hours of a night: nothing is done then.

    ``date`` makes up for another night, for the datasets that have ``{date}`` in their inputs. ``only`` are names of
    datasets. ``until`` replaces that of ``spec``; "none" is no deadline. ``clock`` gives Unix time. A dataset that
    fails is an entry with exit code 1 or 2, and the others go on. Raises ``Busy`` if another night runs,
    ``LeaseLost``, ``SpecError``, ``OutputError`` if the state cannot be read or written.
    """
    spec, hours, names = _decide(spec, date, only, until, clock)
    if not hours.begun and date in (None, hours.date):
        tell(
            f"it is not night: a night is from {spec.since:%H:%M} to {spec.until:%H:%M} {spec.timezone}; "
            "nothing is done (--until none, or a time, starts all the same)"
        )
        return None
    state = Store(spec.state, spec.storage_options)
    night = (date or hours.date).isoformat()
    with Lease.take(state, spec.lease_seconds, clock, f"the night of {night}").kept() as lease:
        record = read_night(state, night) or Night(night, utc(clock()))
        record.deadline = utc(hours.deadline) if hours.deadline is not None else None
        record.webhook = ""

        def due() -> bool:
            return lease.lost or (hours.deadline is not None and clock() >= hours.deadline)

        _datasets(spec, names, record, lease, due, progress, tell)
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
        lines.append(f"{name:13}{_said(found.counts())}; output {found.store.uri}")
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


def _datasets(
    spec: NightlySpec,
    names: list[str],
    record: Night,
    lease: Lease,
    due: Callable[[], bool],
    progress: Callable[[], Progress],
    tell: Callable[[str], None],
) -> None:
    """Plan them all first, so that a mistake is found before any work; then do one after the other."""
    date = datetime.date.fromisoformat(record.date)
    before = {name: record.datasets.get(name) for name in names}
    found: dict[str, Work] = {}
    for name in names:
        job = spec.job_of(name, date)
        record.datasets[name] = Entry(output=Store(job.output, job.storage_options).uri)
        try:
            found[name] = prepare(job, spec.max_removed)
        except SegbatchError as e:
            _fail(record.datasets[name], name, e, tell)
    for name, dataset in found.items():
        counts = dataset.counts()
        if due() and counts["left"]:
            record.datasets[name].shards = {**counts, "new": 0, "changed": 0, "removed": 0}
            continue
        for said in (_said(counts), *dataset.plan.job.warnings()):
            tell(f"{name}: {said}")
        begun = time.monotonic()
        failure: SegbatchError | None = None
        try:
            work(dataset, progress(), due)
        except SegbatchError as e:
            failure = e
            gc.collect()  # the pools of a dataset that broke off hold their cores until then
        seconds = time.monotonic() - begun
        try:
            entry = settle(dataset, record.date, lease, seconds)
            entry.computed, entry.seconds = dataset.tally.totals.records, seconds if dataset.tally.filenames else 0.0
            if earlier := before[name]:
                entry.computed, entry.seconds = entry.computed + earlier.computed, entry.seconds + earlier.seconds
            record.datasets[name] = entry
        except LeaseLost:
            raise
        except SegbatchError as e:
            failure = failure or e
        if failure is not None:
            _fail(record.datasets[name], name, failure, tell)


def _fail(entry: Entry, name: str, error: SegbatchError, tell: Callable[[str], None]) -> None:
    entry.state, entry.message, entry.exit_code = "failed", str(error), 2 if error.exit_code == 2 else 1
    entry.alerts.append(f"failed: {error}")
    tell(f"{name}: failed: {error}")


def _earlier(state: Store, night: str, spec: NightlySpec) -> list[Night]:
    """Records of the nights to compare with, the last first."""
    first = spec.drift.reference_from.isoformat() if spec.drift.reference_from else ""
    found = [d for d in dates(state) if first <= d < night]
    return [n for n in (read_night(state, d) for d in reversed(found)) if n is not None]


def judge(entry: Entry, name: str, earlier: Sequence[Night], spec: NightlySpec, date: datetime.date) -> None:
    """Add what is worth an alert or a note, and the exit code."""
    content = entry.content
    records, errors = entry.current.get("records", 0), entry.current.get("errors", 0)
    limit = spec.job_of(name, date).max_error_fraction
    shares = [(errors / records, "all")] if records else []
    if content and content.totals.records >= spec.drift.min_images:
        shares.append((content.error_share, "tonight's"))
    for share, which in shares:
        if share > limit:
            entry.alerts.append(f"{share:.2%} of {which} records are errors, more than max_error_fraction {limit:.2%}")
            entry.exit_code = entry.exit_code or ERRORS
    if failed := entry.current.get("failed_shards", 0):
        entry.alerts.append(f"{failed:,} shards failed as a whole; see `segbatch errors {entry.output}`")
        entry.exit_code = entry.exit_code or ERRORS
    if content is None or entry.state == "failed":
        return
    nights = [n for n in earlier if name in n.datasets and _comparable(n.datasets[name], entry)][: spec.drift.nights]
    reference = Content(Totals(len(entry.classes)))
    for n in nights:
        reference.add(n.datasets[name].content or Content(Totals(len(entry.classes))))
    findings = compare(content, reference, entry.classes, spec.drift)
    entry.drift = [f.to_json() for f in findings]
    entry.compared_with = sorted(n.date for n in nights)
    drifted = [f"drift of {f.kind}: {f.detail}" for f in findings if f.alert]
    rise = content.error_share - reference.error_share
    if findings and rise > spec.drift.error_rise:
        drifted.append(f"errors rose from {reference.error_share:.2%} to {content.error_share:.2%} of the records")
    if drifted:
        entry.alerts += drifted
        entry.exit_code = entry.exit_code or DRIFT
    if not findings:
        entry.notes.append(
            f"drift is not judged: {content.images:,} images tonight and {reference.images:,} in {len(nights)} earlier "
            f"nights, where it takes {spec.drift.min_images:,} (drift.min_images)"
        )
    rates = [n.datasets[name].rate for n in nights if n.datasets[name].rate]
    if rates and entry.rate and entry.rate < _SLOW * statistics.median(rates):
        entry.notes.append(f"slow: {entry.rate:.1f} images/s, earlier nights {statistics.median(rates):.1f}")


def _comparable(there: Entry, here: Entry) -> bool:
    return there.model == here.model and there.classes == here.classes and there.content is not None


def _forget(spec: NightlySpec, state: Store, names: list[str], night: str) -> None:
    """Remove the records, and the masks that were replaced, of nights before the last ``keep_nights``."""
    kept = dates(state)[-spec.keep_nights :]
    for old in dates(state):
        if old < kept[0]:
            remove_night(state, old)
    for name in names:
        job = spec.job_of(name, datetime.date.fromisoformat(night))
        output = Store(job.output, job.storage_options)
        remove_owned(output, {"retired": retired(output, before=kept[0])})
