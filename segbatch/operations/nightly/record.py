"""The report of a nightly run, as JSON: for machines, and for later nights."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from segbatch.evaluation.drift import Content
from segbatch.output.stored import StoredRecord
from segbatch.output.totals import SparseTotals

ERRORS = 3
DRIFT = EMPTY = 4  # finished, and somebody should look at the content


class NextStep(StoredRecord):
    """What somebody can do about an alert.

    Attributes:
        purpose: What for.
        command: The command line, quoted for a shell; "" for an edit of the configuration.
    """

    purpose: str
    command: str = ""


class DatasetReport(StoredRecord):
    """One dataset in a nightly run, or the late files of an earlier date of it (``street 2026-11-24``).

    Attributes:
        output: Its output, redacted.
        state: ``done``; ``stopped`` by the deadline; ``failed``; ``waiting``, if the deadline left no time for it;
            ``empty``, if nothing was delivered.
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
        absent: Inputs for which nothing was delivered, redacted.
        current: Sums over the whole output: ``records``, ``errors``, ``failed_shards``.
        errors: Number of error rows in the whole output by ``stage/type``.
        examples: The first of these, if they are the alert; or why the first shards failed as a whole.
        drift: Comparisons with earlier nights.
        compared_with: Dates of these nights.
        alerts: Reasons for the exit code.
        notes: Other remarks.
        next_steps: What to do about the alerts.
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
    absent: list[str] = Field(default_factory=list)
    current: dict[str, int] = Field(default_factory=dict)
    errors: dict[str, int] = Field(default_factory=dict)
    examples: list[str] = Field(default_factory=list)
    drift: list[dict[str, Any]] = Field(default_factory=list)
    compared_with: list[str] = Field(default_factory=list)
    alerts: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    next_steps: list[NextStep] = Field(default_factory=list)

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


_VERDICTS: dict[str, Callable[[DatasetReport], bool]] = {
    "FAILED": lambda e: e.exit_code in (1, 2),
    "TOO MANY ERRORS": lambda e: e.exit_code == ERRORS,
    "NOTHING DELIVERED": lambda e: e.exit_code == EMPTY and e.state == "empty",
    "DRIFT": lambda e: e.exit_code == DRIFT and e.state != "empty",
}


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
        names: dict[str, list[str]] = {}
        for what, is_meant in _VERDICTS.items():
            names[what] = [name for name, entry in self.datasets.items() if is_meant(entry)]
        parts = [f"{what}: {', '.join(datasets)}" for what, datasets in names.items() if datasets]
        left = sum(e.shards.get("left", 0) for e in self.datasets.values())
        waiting = any(e.state in ("stopped", "waiting") for e in self.datasets.values())
        if waiting:
            parts.append(f"stopped at the deadline, {left:,} shards left for the next night")
        return "; ".join(parts) or "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {"exit_code": self.exit_code, "verdict": self.verdict, **super().to_json()}


def utc(seconds: float) -> str:
    """Return Unix time as ISO 8601, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
