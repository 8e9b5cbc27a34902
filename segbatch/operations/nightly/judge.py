"""Decide whether a nightly run is an alert: by its share of error rows, and by drift against earlier nights."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence

from segbatch.config.nightly import DriftSpec, NightlySpec
from segbatch.evaluation.drift import Content, measure_drift
from segbatch.operations.nightly.record import DRIFT, EMPTY, ERRORS, DatasetReport, NightReport
from segbatch.output.totals import Totals
from segbatch.text import counted

_SLOW = 0.5


def judge_errors(entry: DatasetReport, limit: float, min_images: int) -> None:
    """Add an alert if the share of error rows, of all records or of those of this night, is above ``limit``."""
    content = entry.content
    records, errors = entry.current.get("records", 0), entry.current.get("errors", 0)
    shares = [(errors / records, "all")] if records else []
    if content and content.totals.records >= min_images:
        shares.append((content.error_share, "tonight's"))
    for share, which in shares:
        if share > limit:
            entry.alerts.append(f"{share:.2%} of {which} records are errors, more than max_error_fraction {limit:.2%}")
            entry.exit_code = entry.exit_code or ERRORS
    if failed := entry.current.get("failed_shards", 0):
        entry.alerts.append(f"{counted(failed, 'shard')} failed as a whole")
        entry.exit_code = entry.exit_code or ERRORS


def judge_delivery(entry: DatasetReport, name: str, spec: NightlySpec) -> None:
    """Add an alert, or a note if it is allowed, that nothing was delivered for some inputs."""
    if not entry.absent:
        return
    text = f"nothing is there: {', '.join(entry.absent)}"
    if len(entry.absent) < len(spec.inputs_of(name)):
        text += f"; the other inputs {'wait until all are there' if entry.state == 'empty' else 'are computed'}"
    if spec.allows_empty(name):
        entry.notes.append(f"{text} (allow_empty)")
        return
    entry.alerts.append(f"{text}; if that may be, set datasets.{name}.allow_empty: true")
    entry.exit_code = entry.exit_code or EMPTY


def judge(
    entry: DatasetReport, name: str, earlier: Sequence[NightReport], spec: NightlySpec, date: datetime.date
) -> None:
    """Add alerts and notes to the entry of a dataset, and its exit code."""
    judge_errors(entry, spec.job_of(name, date).max_error_fraction, spec.drift.min_images)
    content = entry.content
    if content is None or entry.state == "failed":
        return
    nights = [n for n in earlier if name in n.datasets and _is_comparable(n.datasets[name], entry)][: spec.drift.nights]
    reference = Content(Totals(len(entry.classes)))
    for n in nights:
        reference.add(n.datasets[name].content or Content(Totals(len(entry.classes))))
    reason = _why_not_judged(content, nights, name, spec.drift)
    findings = [] if reason else measure_drift(content, reference, entry.classes, spec.drift)
    entry.drift = [f.to_json() for f in findings]
    entry.compared_with = sorted(n.date for n in nights) if findings else []
    drifted = [f"drift of {f.kind}: {f.detail}" for f in findings if f.alert]
    rise = content.error_share - reference.error_share
    if findings and rise > spec.drift.error_rise:
        drifted.append(f"errors rose from {reference.error_share:.2%} to {content.error_share:.2%} of the records")
    if drifted:
        entry.alerts += drifted
        entry.exit_code = entry.exit_code or DRIFT
    if reason:
        entry.notes.append(f"drift is not judged {reason}")
    rates = [n.datasets[name].rate for n in nights if n.datasets[name].rate]
    if rates and entry.rate and entry.rate < _SLOW * statistics.median(rates):
        entry.notes.append(f"slow: {entry.rate:.1f} images/s, earlier nights {statistics.median(rates):.1f}")


def _why_not_judged(content: Content, nights: Sequence[NightReport], name: str, drift: DriftSpec) -> str:
    """Return why the content of a night cannot be compared with ``nights`` yet, or ""."""
    if content.images < drift.min_images:
        return f"in a night of {content.images:,} images, fewer than drift.min_images = {drift.min_images:,}"
    earlier = [c for n in nights if (c := n.datasets[name].content) and c.images >= drift.min_images]
    needed = min(drift.min_runs, drift.nights)
    if len(earlier) >= needed:
        return ""
    return (
        f"yet ({len(earlier)} of {needed} nights): it takes {needed} earlier nights (drift.min_runs) with the same "
        f"settings and at least {drift.min_images:,} images each (drift.min_images)"
    )


def _is_comparable(earlier: DatasetReport, entry: DatasetReport) -> bool:
    return earlier.model == entry.model and earlier.classes == entry.classes and earlier.content is not None
