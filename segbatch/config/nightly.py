"""NightlySpec: the datasets of a night, when it ends, and what is worth an alert."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from segbatch.config.base import merge, parse_spec, read_config, setting
from segbatch.config.job import JobSpec
from segbatch.errors import SpecError

_CLOSED = ConfigDict(extra="forbid", frozen=True, validate_default=True)
_DATE = re.compile(r"\{date(?::([^{}]+))?\}")


class DriftSpec(BaseModel):
    """What is compared with earlier nights, and how much may differ; docs/nightly.md reasons the defaults."""

    model_config = _CLOSED

    nights: int = Field(14, gt=0, description="how many earlier nights tonight is compared with")
    reference_from: datetime.date | None = Field(
        None, description="nights before this date are not compared with: what changed then is the new normal"
    )
    min_images: int = Field(100, gt=0, description="fewer images, tonight or before, are not judged")
    psi: float = Field(0.2, gt=0, description="population stability index above which classes or confidence drift")
    js: float = Field(0.05, gt=0, le=1, description="Jensen-Shannon divergence in bits, likewise")
    error_rise: float = Field(0.005, gt=0, le=1, description="rise of the share of error rows that is an alert")


class WebhookSpec(BaseModel):
    """Where the summary is posted."""

    model_config = _CLOSED

    url: str = setting(..., "http:// or https://; never written to a record or a log", effect="secret")
    headers: dict[str, str] = setting({}, "sent with it, such as Authorization", effect="secret")
    when: Literal["always", "alert"] = Field("always", description="alert: only when the exit code is not 0")
    timeout: float = Field(10, gt=0, le=300, description="seconds an attempt may take")
    attempts: int = Field(4, gt=0, le=20, description="waits between them double, from one second")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("should be a URL that begins with https:// or http://")
        return value


class NightlySpec(BaseModel):
    """One configuration of ``segbatch nightly``."""

    model_config = _CLOSED

    state: str = Field(description="folder or prefix for the lease and the nights' records", min_length=1)
    datasets: dict[str, dict[str, Any]] = Field(
        description="by name: what `segbatch run` takes, with an output of its own", min_length=1, repr=False
    )
    job: dict[str, Any] = Field(
        default_factory=dict, description="keys of `segbatch run` for every dataset", repr=False
    )
    storage_options: dict[str, Any] = setting(
        {},
        "passed to fsspec, for the state and for datasets that have none of their own; never written",
        effect="secret",
    )
    since: datetime.time | None = Field(
        None, description="a start between `until` and this time does nothing: a restart by day must not run all day"
    )
    until: datetime.time | None = Field(None, description="nothing is begun from this time on; it goes on next night")
    timezone: str = Field("UTC", description="of `since`, `until` and the night's date, such as Europe/Berlin")
    lease_seconds: float = Field(
        300, ge=5, description="a night that gives no sign of life for so long is dead, and another may begin"
    )
    max_removed: float = Field(
        0.5,
        ge=0,
        le=1,
        description="if a larger share of a dataset's shards or loose images is gone from the input, it is not touched",
    )
    lookback_days: int = Field(
        1, ge=0, le=366, description="how many earlier dates of datasets with {date} are looked at for late files"
    )
    keep_nights: int = Field(90, gt=0, description="records and replaced masks of older nights are removed")
    drift: DriftSpec = Field(default_factory=lambda: DriftSpec(), description="what is an alert")
    webhook: WebhookSpec | None = Field(None, description="where the summary is posted")

    @field_validator("since", "until", mode="before")
    @classmethod
    def _clock(cls, value: object) -> object:
        # YAML 1.1 reads an unquoted 06:00 as the number 360, and 6:30 as 390.
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError('should be a time of day in quotes, such as "06:00"')
        if isinstance(value, str) and not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value):
            raise ValueError('should be a time of day, such as "06:00"')
        return f"{value:0>5}" if isinstance(value, str) else value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            _zone(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = "names are such as UTC and Europe/Berlin (slim images know only UTC: pip install tzdata)"
            raise ValueError(f"no such time zone; {known}") from None
        return value

    @staticmethod
    def create(**fields: Any) -> NightlySpec:
        """A spec from plain data, its jobs checked. Raises ``SpecError`` that names field, value and remedy."""
        fields = {k: v for k, v in fields.items() if v is not None}
        spec = parse_spec(NightlySpec, fields)
        if spec.since is not None and spec.until is None:
            raise SpecError("since: needs `until` as well; a night is from `since` to `until`")
        if spec.drift.nights > spec.keep_nights:
            raise SpecError(
                f"drift.nights: {spec.drift.nights} nights to compare with, but keep_nights is {spec.keep_nights}; "
                "keep as many as are compared with"
            )
        outputs: dict[str, str] = {}
        for name in spec.datasets:
            job = spec.job_of(name, datetime.date(2000, 1, 1))
            other = outputs.setdefault(job.output.rstrip("/"), name)
            if other != name:
                raise SpecError(f"datasets.{name}.output: {job.output!r} is that of {other} too; each has its own")
        return spec

    @staticmethod
    def load(uri: str | Path) -> NightlySpec:
        """A spec from a YAML or JSON file on any fsspec URI."""
        return NightlySpec.create(**read_config(uri))

    def job_of(self, name: str, date: datetime.date) -> JobSpec:
        """The job of one dataset on one night: ``{date}`` and ``{date:%Y/%m/%d}`` are filled in."""
        where = f"datasets.{name}"
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
            raise SpecError(f"{where}: a dataset's name is of letters, digits, -, _ and .; give another")
        fields = merge(self.job, self.datasets[name])
        if self.storage_options:
            fields.setdefault("storage_options", self.storage_options)
        inputs, output = fields.get("inputs"), fields.get("output")
        if not isinstance(output, str) or not output:
            raise SpecError(f"{where}.output: required; give the folder or prefix that its masks go to")
        if fields.get("overwrite"):
            raise SpecError(f"{where}.overwrite: would remove every earlier night; give another output instead")
        if fields.get("retry_errors"):
            raise SpecError(f"{where}.retry_errors: is for one run; give it to `segbatch run` with this output")
        inputs = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(inputs, list) and all(isinstance(i, str) for i in inputs):
            if any(map(_DATE.search, inputs)) != bool(_DATE.search(output)):
                raise SpecError(
                    f"{where}: {{date}} must be in both inputs and output or in neither: without it in the output, the "
                    "shards of one date would replace those of another"
                )
            fields["inputs"] = [_dated(i, date) for i in inputs]
            fields["output"] = _dated(output, date)
        try:
            return JobSpec.create(**fields)
        except SpecError as e:
            raise SpecError("\n".join(f"{where}: {line}" for line in str(e).splitlines())) from None

    def ending(self, until: str) -> NightlySpec:
        """The same with another ``until``, or "none", and without ``since``. Raises ``SpecError``."""
        fields = self.model_dump(exclude={"since", "until"}, exclude_none=True)
        return NightlySpec.create(**fields, until=None if until == "none" else until)

    def dated(self, name: str) -> bool:
        """Whether a dataset has a part of its own for each date, so that a date can be made up for."""
        return _DATE.search(merge(self.job, self.datasets[name])["output"]) is not None

    def hours(self, now: float) -> Hours:
        """The night in which ``now`` (Unix time) lies, or that begins with it."""
        here = datetime.datetime.fromtimestamp(now, _zone(self.timezone))
        if self.until is None:
            return Hours(here.date(), None, True)
        deadline = _next(here, self.until)
        if self.since is None:
            return Hours(here.date(), deadline.timestamp(), True)
        begin = _next(deadline - datetime.timedelta(days=1), self.since)
        return Hours(begin.date(), deadline.timestamp(), begin <= here)


@dataclass(frozen=True)
class Hours:
    """A night's ``date``, its ``deadline`` in Unix time or None, and whether it has ``has_begun``."""

    date: datetime.date
    deadline: float | None
    has_begun: bool


def _zone(name: str) -> datetime.tzinfo:
    return datetime.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def _next(after: datetime.datetime, clock: datetime.time) -> datetime.datetime:
    """The first ``clock`` of the time zone after ``after``."""
    found = datetime.datetime.combine(after.date(), clock, after.tzinfo)
    return (
        found if found > after else datetime.datetime.combine(found.date() + datetime.timedelta(1), clock, found.tzinfo)
    )


def _dated(text: str, date: datetime.date) -> str:
    return _DATE.sub(lambda found: date.strftime(found[1] or "%Y-%m-%d"), text)
