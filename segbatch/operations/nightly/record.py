"""The report of a nightly run: JSON for machines and later nights, Markdown for people."""

from __future__ import annotations

import datetime
import html
import json
import re
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from segbatch.errors import OutputError
from segbatch.evaluation.drift import Content
from segbatch.output.layout import DATE
from segbatch.output.stored import StoredRecord
from segbatch.output.totals import SparseTotals
from segbatch.storage.store import Store
from segbatch.text import escape_control_characters

NIGHTS = "nights"
RECORD = "night.json"
SUMMARY = "summary.md"
DRIFT, ERRORS = 4, 3


class DatasetReport(StoredRecord):
    """One dataset in a nightly run, or the late files of an earlier date of it (``street 2026-11-24``).

    Attributes:
        output: Its output, redacted.
        state: ``done``; ``stopped`` by the deadline; ``failed``; ``waiting``, if the deadline left no time for it.
        message: The error of a failed dataset.
        exit_code: 0, or what is wrong with it.
        shards: Numbers of shards: ``total``, ``new``, ``changed``, ``removed``, and ``left``, which are incomplete.
        names: The first of each kind of shards.
        computed: Records that were computed.
        seconds: Duration of that.
        model: Digest of all that decides the rows but the corpus: nights are compared if it is equal.
        classes: Names of the classes.
        totals: Sums over the shards that were promoted.
        confidence: Histogram of the image confidences in these shards.
        current: Sums over the whole output: ``records``, ``errors``, ``failed_shards``.
        drift: Comparisons with earlier nights.
        compared_with: Dates of these nights.
        alerts: Reasons for the exit code.
        notes: Other remarks.
    """

    model_config = ConfigDict(frozen=False)

    output: str
    state: str = "waiting"
    message: str = ""
    exit_code: int = 0
    shards: dict[str, int] = Field(default_factory=dict)
    names: dict[str, list[str]] = Field(default_factory=dict)
    computed: int = 0
    seconds: float = 0.0
    model: str = ""
    classes: list[str] = Field(default_factory=list)
    totals: SparseTotals | None = None
    confidence: list[int] = Field(default_factory=list)
    current: dict[str, int] = Field(default_factory=dict)
    drift: list[dict[str, Any]] = Field(default_factory=list)
    compared_with: list[str] = Field(default_factory=list)
    alerts: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @field_validator("totals", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return value or None  # {} until format 1.0

    @property
    def content(self) -> Content | None:
        """Sums and confidences of the promoted shards; None without any."""
        if self.totals is None or not self.totals.records:
            return None
        return Content(self.totals.expand(len(self.classes)), np.array(self.confidence, np.int64))

    @property
    def rate(self) -> float:
        """Images per second, over all starts of this night."""
        return self.computed / self.seconds if self.computed and self.seconds else 0.0


class NightReport(StoredRecord):
    """One nightly run.

    Attributes:
        date: The night.
        started: ISO 8601, UTC.
        finished: ISO 8601, UTC; "" before.
        deadline: ISO 8601, UTC; None without one.
        datasets: The datasets by name.
        webhook: Why the summary could not be posted, or "".
    """

    model_config = ConfigDict(frozen=False)

    date: str
    started: str
    finished: str = ""
    deadline: str | None = None
    datasets: dict[str, DatasetReport] = Field(default_factory=dict)
    webhook: str = ""

    @property
    def exit_code(self) -> int:
        """1 if a dataset failed (2 if all that did are misconfigured), else 3 for errors, 4 for drift, or 0."""
        codes = {e.exit_code for e in self.datasets.values()} - {0}
        return next((c for c in (1, 2, ERRORS, DRIFT) if c in codes), max(codes, default=0))

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        names = {c: [n for n, e in self.datasets.items() if e.exit_code == c] for c in (1, 2, ERRORS, DRIFT)}
        parts = [
            f"{what}: {', '.join(datasets)}"
            for what, datasets in (
                ("FAILED", names[1] + names[2]),
                ("TOO MANY ERRORS", names[ERRORS]),
                ("DRIFT", names[DRIFT]),
            )
            if datasets
        ]
        left = sum(e.shards.get("left", 0) for e in self.datasets.values())
        waiting = any(e.state in ("stopped", "waiting") for e in self.datasets.values())
        if waiting:
            parts.append(f"stopped at the deadline, {left:,} shards left for the next night")
        return "; ".join(parts) or "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"exit_code": self.exit_code, "verdict": self.verdict, **super().to_json()}

    def to_markdown(self) -> str:
        """Return the summary: the verdict, a table of the datasets, then alerts and notes."""
        hours = f"{_minute(self.started)} to {_minute(self.finished)} UTC"
        deadline = f", deadline {_minute(self.deadline)} UTC" if self.deadline else ""
        parts = [f"# Night of {self.date}: {_plain(self.verdict)}", f"{hours}{deadline}; exit code {self.exit_code}"]
        parts.append(_table([_HEAD, *(_row(name, e) for name, e in self.datasets.items())]))
        for name, entry in self.datasets.items():
            lines = [f"- **alert**: {_plain(a)}" for a in entry.alerts] + [f"- {_plain(n)}" for n in entry.notes]
            for what in ("changed", "removed"):
                if shown := entry.names.get(what):
                    more = entry.shards[what] - len(shown[:10])
                    lines.append(f"- {what}: {_plain(', '.join(shown[:10]))}{f' and {more:,} more' if more else ''}")
            if entry.drift:
                lines.append(f"- compared with the new images of {_span(entry.compared_with)}:")
                lines += ["", _table([_DRIFT_HEAD, *map(_drift_row, entry.drift)])]
            if lines:
                parts += [f"## {name}", "\n".join(lines)]
        if self.webhook:
            parts.append(f"The webhook did not take this summary: {_plain(self.webhook)}")
        return "\n\n".join(parts) + "\n"


_HEAD = ("dataset", "state", "new", "changed", "removed", "left", "images", "errors", "images/s", "masks in all")
_DRIFT_HEAD = ("compared", "PSI", "limit", "JS", "limit", "", "what moved")


def _row(name: str, e: DatasetReport) -> tuple[str, ...]:
    records, errors = (e.totals.records, sum(e.totals.errors.values())) if e.totals else (0, 0)
    counts = (f"{e.shards.get(k, 0):,}" if e.shards else "–" for k in ("new", "changed", "removed", "left"))
    rate = f"{e.rate:.1f}" if e.rate else "–"
    masks = f"{e.current['records'] - e.current['errors']:,}" if e.current else "–"
    return (name, e.state, *counts, f"{records - errors:,}", f"{errors:,}", rate, masks)


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


def write_night(store: Store, night: NightReport) -> None:
    """Write the report of a night into the state."""
    folder = f"{NIGHTS}/{night.date}"
    store.write(f"{folder}/{SUMMARY}", night.to_markdown().encode())
    store.write(f"{folder}/{RECORD}", (json.dumps(night.to_json(), indent=1) + "\n").encode())


def read_night(store: Store, date: str) -> NightReport | None:
    """Read the report of a night, or None. Raises ``OutputError`` for another file."""
    name = f"{NIGHTS}/{date}/{RECORD}"
    try:
        return NightReport.parse(store.read(name), f"{store.uri}/{name}")
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise OutputError(f"{store.uri}/{name}: not the report of a nightly run ({e}); remove it") from None


def remove_night(store: Store, date: str) -> None:
    """Delete the report of a night, and its folder unless it holds files of anyone else."""
    folder = f"{NIGHTS}/{date}"
    store.remove_all([f"{folder}/{RECORD}", f"{folder}/{SUMMARY}"])
    store.remove_empty(folder)


def dates(store: Store) -> list[str]:
    """Return the dates with a report, in order."""
    return sorted(n for n in store.names(NIGHTS) if DATE.fullmatch(n))


def utc(seconds: float) -> str:
    """Return Unix time as ISO 8601, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
