"""What a night came to: as JSON for machines and later nights, as Markdown for whoever reads it in the morning."""

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
    """One dataset on one night, or what came late for an earlier date of it (``street 2026-11-24``).

    ``state``: done; stopped (the deadline came first); failed; waiting (the deadline left no time for it).
    ``shards`` counts them: total, new, changed, removed, left (not whole yet); ``names`` are the first of each.
    ``totals`` and ``confidence`` are of the shards that became current this night, ``computed`` and ``seconds`` of the
    work done in it. ``alerts`` set the exit code, ``notes`` do not.
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
        """The sums of what became current, or None if nothing did."""
        if self.totals is None or not self.totals.records:
            return None
        return Content(self.totals.expand(len(self.classes)), np.array(self.confidence, np.int64))

    @property
    def rate(self) -> float:
        """Images a second, over the attempts of this night."""
        return self.computed / self.seconds if self.computed and self.seconds else 0.0


class NightReport(StoredRecord):
    """One night. Times are ISO 8601 in UTC; ``webhook`` says why the summary could not be posted, if it could not."""

    model_config = ConfigDict(frozen=False)

    date: str
    started: str
    finished: str = ""
    deadline: str | None = None
    datasets: dict[str, DatasetReport] = Field(default_factory=dict)
    webhook: str = ""

    @property
    def exit_code(self) -> int:
        """1 if a dataset failed (2 if each that did is misconfigured), else 3 for errors, else 4 for drift, else 0."""
        codes = {e.exit_code for e in self.datasets.values()} - {0}
        return next((c for c in (1, 2, ERRORS, DRIFT) if c in codes), max(codes, default=0))

    @property
    def verdict(self) -> str:
        """The night in a few words."""
        names = {c: [n for n, e in self.datasets.items() if e.exit_code == c] for c in (1, 2, ERRORS, DRIFT)}
        said = [
            f"{what}: {', '.join(found)}"
            for what, found in (
                ("FAILED", names[1] + names[2]),
                ("TOO MANY ERRORS", names[ERRORS]),
                ("DRIFT", names[DRIFT]),
            )
            if found
        ]
        left = sum(e.shards.get("left", 0) for e in self.datasets.values())
        waiting = any(e.state in ("stopped", "waiting") for e in self.datasets.values())
        if waiting:
            said.append(f"stopped at the deadline, {left:,} shards left for the next night")
        return "; ".join(said) or "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"exit_code": self.exit_code, "verdict": self.verdict, **super().to_json()}

    def to_markdown(self) -> str:
        """The night as a page: the verdict first, a table of the datasets, then what is wrong or worth a look."""
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
    figures = (f"{d[k]:.3f}" for k in ("psi", "limit_psi", "js", "limit_js"))
    return (d["kind"], *figures, "ALERT" if d["alert"] else "ok", _plain(d["detail"]))


def _table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table whose columns are aligned as plain text too; numbers to the right."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    left = [not re.fullmatch(r"[\d.,–]+", rows[1][i]) for i in range(len(widths))]
    lines = [
        "| " + " | ".join(c.ljust(w) if at else c.rjust(w) for c, w, at in zip(r, widths, left, strict=True)) + " |"
        for r in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if at else ":") for w, at in zip(widths, left, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _plain(text: str) -> str:
    """Text of a stranger (names of shards and classes) on one line of Markdown, without markup of its own."""
    shown = html.escape(escape_control_characters("; ".join(text.splitlines())), quote=False)
    return re.sub(r"([|`*\\[\]])", r"\\\1", shown)


def _minute(iso: str) -> str:
    return iso[:16].replace("T", " ")


def _span(dates: list[str]) -> str:
    return dates[0] if len(dates) == 1 else f"{len(dates)} nights, {dates[0]} to {dates[-1]}"


def write_night(store: Store, night: NightReport) -> None:
    folder = f"{NIGHTS}/{night.date}"
    store.write(f"{folder}/{SUMMARY}", night.to_markdown().encode())
    store.write(f"{folder}/{RECORD}", (json.dumps(night.to_json(), indent=1) + "\n").encode())


def read_night(store: Store, date: str) -> NightReport | None:
    """The record of a night, or None. Raises ``OutputError`` if it is not one."""
    name = f"{NIGHTS}/{date}/{RECORD}"
    try:
        return NightReport.parse(store.read(name), f"{store.uri}/{name}")
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise OutputError(f"{store.uri}/{name}: not the record of a night ({e}); remove it") from None


def remove_night(store: Store, date: str) -> None:
    """Remove the record of a night, and its folder unless somebody else's files are in it."""
    folder = f"{NIGHTS}/{date}"
    store.remove_all([f"{folder}/{RECORD}", f"{folder}/{SUMMARY}"])
    store.remove_empty(folder)


def dates(store: Store) -> list[str]:
    """Dates of which there is a record, in order."""
    return sorted(n for n in store.names(NIGHTS) if DATE.fullmatch(n))


def utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
