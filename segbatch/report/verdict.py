"""The first lines of a report: whether the output is complete, and what someone should look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from segbatch.output.stats import class_rows
from segbatch.report.summary import LOW_CONFIDENCE, Summary
from segbatch.skipped import Skipped
from segbatch.text import counted

Level = Literal["alert", "warning", "note"]
_LOW_CLASS = 0.6  # mean confidence of a class
_LOW_SHARE = 0.1  # share of images with low confidence that is a warning
_EMPTY_SHARE = 0.5
_MAX_NAMES = 8


@dataclass(frozen=True)
class Finding:
    """One line of the verdict. ``anchor`` is the section that shows more, or ""."""

    level: Level
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class State:
    """What is known of a run besides its rows.

    Attributes:
        is_finished: Whether it was closed, and every shard is complete.
        incomplete_shards: Number of shards whose last chunk is not committed.
        failed_shards: Why the first shards failed as a whole.
        skipped: What the inputs hold besides records.
        max_error_fraction: Above this share of error rows a run has exit code 3.
        alerts: Those of the last night.
    """

    is_finished: bool
    incomplete_shards: int
    failed_shards: Sequence[str]
    skipped: Skipped
    max_error_fraction: float
    alerts: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """Headline, level of the worst finding (``good`` without any), and the findings."""

    headline: str
    level: Literal["good", "warning", "bad"]
    findings: tuple[Finding, ...]

    @staticmethod
    def of(state: State, summary: Summary) -> Verdict:
        """Judge an output."""
        findings = [*_of_run(state, summary), *_of_masks(summary), *_of_inputs(state)]
        findings.sort(key=lambda finding: ("alert", "warning", "note").index(finding.level))
        levels = {finding.level for finding in findings}
        level: Literal["good", "warning", "bad"] = "bad" if "alert" in levels else "good"
        if level == "good" and "warning" in levels:
            level = "warning"
        return Verdict(_headline(state, summary), level, tuple(findings))


def _headline(state: State, summary: Summary) -> str:
    records, failed = summary.totals.records, summary.totals.failed
    if not state.is_finished:
        return f"Not finished: {counted(summary.masks, 'mask')} and {counted(failed, 'error')} so far"
    if failed_shards := summary.totals.failed_shards:
        return f"Incomplete: {counted(failed_shards, 'shard')} failed, {counted(summary.masks, 'mask')} are there"
    if not records:
        return "Complete, and empty: the inputs hold no record"
    if not failed:
        return f"Complete: every one of {counted(records, 'record')} has a mask"
    return f"Complete: {summary.masks:,} of {counted(records, 'record')} have a mask, {failed:,} failed"


def _of_run(state: State, summary: Summary) -> Iterator[Finding]:
    records, failed = summary.totals.records, summary.totals.failed
    if not state.is_finished:
        shards = counted(state.incomplete_shards, "shard")
        yield Finding(
            "warning",
            "the run is not finished; this page shows what is committed by now"
            f"{f' ({shards} begun and incomplete)' if state.incomplete_shards else ''}; the same command resumes",
            "reproduce",
        )
    fraction = failed / records if records else 0.0
    if fraction > state.max_error_fraction:
        text = f"{fraction:.2%} of the records are errors, more than max_error_fraction {state.max_error_fraction:.2%}"
        yield Finding("alert", text, "errors")
    elif failed:
        limit = f"no more than max_error_fraction {state.max_error_fraction:.2%}"
        yield Finding("note", f"{counted(failed, 'error')}, {fraction:.2%} of the records, {limit}", "errors")
    if number := summary.totals.failed_shards:
        yield Finding("alert", f"{counted(number, 'shard')} failed as a whole; images after the failure are missing")
    yield from (Finding("alert", f"a shard failed: {message}") for message in state.failed_shards)
    yield from (Finding("alert", f"last night: {alert}", "nights") for alert in state.alerts)


def _of_masks(summary: Summary) -> Iterator[Finding]:
    masks, classes = summary.masks, class_rows(summary.totals, summary.labels)
    if not masks:
        return
    if summary.low:
        share = summary.low / masks
        text = f"{counted(summary.low, 'image')} ({share:.1%}) have a confidence below {LOW_CONFIDENCE:g}"
        yield Finding("warning" if share >= _LOW_SHARE else "note", text, "images")
    unsure = [c for c in classes if c.confidence is not None and c.confidence < _LOW_CLASS]
    if unsure:
        unsure.sort(key=lambda c: c.confidence or 0)
        shown = [f"{c.name} {c.confidence:.2f}" for c in unsure]
        text = f"check these classes first, their mean confidence is below {_LOW_CLASS:g}: {_listed(shown)}"
        yield Finding("warning", text, "classes")
    if summary.empty:
        share = summary.empty / masks
        text = f"{counted(summary.empty, 'mask')} ({share:.1%}) are nothing but background"
        yield Finding("warning" if share >= _EMPTY_SHARE else "note", text, "distributions")
    if absent := [c.name for c in classes if not c.images]:
        text = f"{len(absent)} of {counted(len(classes), 'class')} are in no image: {_listed(absent)}"
        yield Finding("note", text, "classes")


def _of_inputs(state: State) -> Iterator[Finding]:
    if state.skipped:
        text = f"the inputs also hold {counted(state.skipped.count, 'object')} that were skipped"
        yield Finding("note", text, "skipped")


def _listed(names: Sequence[str]) -> str:
    left = len(names) - _MAX_NAMES
    return f"{', '.join(names[:_MAX_NAMES])}{f' and {left:,} more' if left > 0 else ''}"
