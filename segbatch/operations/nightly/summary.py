"""The summary of a nightly run in Markdown, which is also readable as plain text."""

from __future__ import annotations

import html
import re
from typing import Any

from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.text import escape_control_characters

_HEAD = ("dataset", "state", "new", "changed", "removed", "left", "images", "errors", "images/s", "masks in all")
_MAX_KINDS = 10
_DRIFT_HEAD = ("compared", "PSI", "limit", "JS", "limit", "", "what moved")


def to_markdown(night: NightReport) -> str:
    """Return the summary of a night: the verdict, a table of the datasets, then alerts and notes."""
    hours = f"{_minute(night.started)} to {_minute(night.finished)} UTC"
    deadline = f", deadline {_minute(night.deadline)} UTC" if night.deadline else ""
    parts = [f"# Night of {night.date}: {_plain(night.verdict)}", f"{hours}{deadline}; exit code {night.exit_code}"]
    parts.append(_table([_HEAD, *(_row(name, e) for name, e in night.datasets.items())]))
    for name, entry in night.datasets.items():
        lines = [f"- **alert**: {_plain(a)}" for a in entry.alerts] + _errors(entry)
        lines += [f"- {_plain(n)}" for n in entry.notes]
        for what in ("changed", "removed"):
            if shown := entry.names.get(what):
                more = entry.shards[what] - len(shown[:10])
                lines.append(f"- {what}: {_plain(', '.join(shown[:10]))}{f' and {more:,} more' if more else ''}")
        if entry.drift:
            lines.append(f"- compared with the new images of {_span(entry.compared_with)}:")
            lines += ["", _table([_DRIFT_HEAD, *map(_drift_row, entry.drift)]), ""]
        lines += [
            f"- next: {_plain(s.purpose)}{f': {_code(s.command)}' if s.command else ''}" for s in entry.next_steps
        ]
        if lines:
            parts += [f"## {name}", "\n".join(lines)]
    if night.webhook:
        parts.append(f"The webhook did not take this summary: {_plain(night.webhook)}")
    return "\n\n".join(parts) + "\n"


def _row(name: str, e: DatasetReport) -> tuple[str, ...]:
    records, errors = (e.totals.records, sum(e.totals.errors.values())) if e.totals else (0, 0)
    counts = (f"{e.shards.get(k, 0):,}" if e.shards else "–" for k in ("new", "changed", "removed", "left"))
    rate = f"{e.rate:.1f}" if e.rate else "–"
    masks = f"{e.current['records'] - e.current['errors']:,}" if e.current else "–"
    return (name, e.state, *counts, f"{records - errors:,}", f"{errors:,}", rate, masks)


def _errors(e: DatasetReport) -> list[str]:
    """Return the kinds of error rows: of this night, and if they are an alert of the whole output, with examples."""
    tonight = e.totals.errors if e.totals else {}
    lines = [f"- errors of this night: {_kinds(tonight)}"] if tonight else []
    if e.examples and e.errors != tonight:
        lines.append(f"- errors of the whole output: {_kinds(e.errors)}")
    return lines + [f"- such as {_plain(example)}" for example in e.examples]


def _kinds(errors: dict[str, int]) -> str:
    """Return ``decode/TruncatedImage 5, read/MissingObject 2``, the most frequent first."""
    ordered = sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    more = len(ordered) - _MAX_KINDS
    shown = ", ".join(f"{_plain(kind)} {count:,}" for kind, count in ordered[:_MAX_KINDS])
    return f"{shown} and {more:,} more kinds" if more > 0 else shown


def _code(text: str) -> str:
    """Return a command as code, in which Markdown and HTML escape nothing."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{escape_control_characters(text)}{pad}{fence}"


def _drift_row(d: dict[str, Any]) -> tuple[str, ...]:
    metrics = (f"{d[k]:.3f}" for k in ("psi", "limit_psi", "js", "limit_js"))
    return (d["kind"], *metrics, "ALERT" if d["alert"] else "ok", _plain(d["detail"]))


def _table(rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table whose columns are also aligned as plain text, numbers to the right."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    left = [not re.fullmatch(r"[\d.,–]+", rows[1][i]) for i in range(len(widths))]
    lines = [
        "| " + " | ".join(c.ljust(w) if at else c.rjust(w) for c, w, at in zip(r, widths, left, strict=True)) + " |"
        for r in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if at else ":") for w, at in zip(widths, left, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _plain(text: str) -> str:
    """Return untrusted text (names of shards and classes) on one line of Markdown, with markup escaped."""
    shown = html.escape(escape_control_characters("; ".join(text.splitlines())), quote=False)
    return re.sub(r"([|`*\\[\]])", r"\\\1", shown)


def _minute(iso: str) -> str:
    return iso[:16].replace("T", " ")


def _span(dates: list[str]) -> str:
    return dates[0] if len(dates) == 1 else f"{len(dates)} nights, {dates[0]} to {dates[-1]}"
