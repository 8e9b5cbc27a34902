"""NightlySpec: the datasets of a nightly run, its hours, and what is an alert."""

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
from segbatch.storage.uri import absolute, is_uri
from segbatch.text import BLANK, is_blank

_CLOSED = ConfigDict(extra="forbid", frozen=True, validate_default=True)
DATE = re.compile(r"\{date(?::([^{}]+))?\}")


class DriftSpec(BaseModel):
    """What is compared with earlier nights, and how much may differ; docs/nightly.md explains the defaults."""

    model_config = _CLOSED

    nights: int = Field(14, gt=0, description="number of earlier nights to compare with")
    reference_from: datetime.date | None = Field(
        None, description="date before which nights are not compared with, after an intended change"
    )
    min_images: int = Field(100, gt=0, description="minimum number of images of a night that is compared")
    min_runs: int = Field(
        3, gt=0, description="minimum number of earlier nights with so many images; never more than `nights`"
    )
    psi: float = Field(0.2, gt=0, description="population stability index above which a difference is an alert")
    js: float = Field(
        0.05, gt=0, le=1, description="Jensen-Shannon divergence in bits above which a difference is an alert"
    )
    error_rise: float = Field(
        0.005, gt=0, le=1, description="increase of the share of error rows above which it is an alert"
    )


class WebhookSpec(BaseModel):
    """Where the summary is posted."""

    model_config = _CLOSED

    url: str = setting(..., "http:// or https:// URL; never written to a report or a log", effect="secret")
    headers: dict[str, str] = setting({}, "request headers, such as Authorization", effect="secret")
    when: Literal["always", "alert"] = Field("always", description="alert: only if the exit code is not 0")
    timeout: float = Field(10, gt=0, le=300, description="seconds per attempt")
    attempts: int = Field(4, gt=0, le=20, description="number of attempts, with exponential backoff from one second")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("should be a URL that begins with https:// or http://")
        return value


class NightlySpec(BaseModel):
    """The configuration of ``segbatch nightly``."""

    model_config = _CLOSED

    state: str = Field(description="folder or prefix for the lease and the reports")
    datasets: dict[str, dict[str, Any]] = Field(
        description="settings of `segbatch run` by dataset name; each has a separate output", min_length=1, repr=False
    )
    job: dict[str, Any] = Field(
        default_factory=dict, description="settings of `segbatch run` for every dataset", repr=False
    )
    storage_options: dict[str, Any] = setting(
        {},
        "passed to fsspec for the state, and for datasets without such options; never written",
        effect="secret",
    )
    since: datetime.time | None = Field(
        None, description="start of the night; a run that is started between `until` and this time does nothing"
    )
    until: datetime.time | None = Field(
        None, description="deadline: no chunk is started after it, and the next night resumes"
    )
    timezone: str = Field("UTC", description="time zone of `since`, `until` and the date, such as Europe/Berlin")
    lease_seconds: float = Field(
        300, ge=5, description="seconds without a heartbeat after which another run may take over"
    )
    max_removed: float = Field(
        0.5,
        ge=0,
        le=1,
        description="maximum share of a dataset's shards or loose images that may be gone from the input, 0 to 1",
    )
    allow_empty: bool = Field(
        False, description="a date with nothing delivered is no alert; also a key of one dataset, which counts first"
    )
    lookback_days: int = Field(
        1, ge=0, le=366, description="number of earlier dates of datasets with {date} that are checked for late files"
    )
    keep_nights: int = Field(90, gt=0, description="number of nights whose reports and archived masks are kept")
    drift: DriftSpec = Field(default_factory=lambda: DriftSpec(), description="thresholds of alerts")
    webhook: WebhookSpec | None = Field(None, description="where the summary is posted")
    metrics_file: str | None = Field(
        None,
        description="file on this machine for the metrics of a night, which the node exporter of Prometheus reads",
    )

    @field_validator("state")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if is_blank(value):
            raise ValueError(BLANK)
        return value

    @field_validator("since", "until", mode="before")
    @classmethod
    def _clock(cls, value: object) -> object:
        # YAML 1.1 reads an unquoted 06:00 as the number 360, and 6:30 as 390.
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError('should be a time of day in quotes, such as "06:00"')
        if isinstance(value, str) and not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value):
            raise ValueError('should be a time of day, such as "06:00"')
        return f"{value:0>5}" if isinstance(value, str) else value

    @field_validator("metrics_file")
    @classmethod
    def _prom(cls, value: str | None) -> str | None:
        if value is not None and (is_uri(value) or not value.endswith(".prom")):
            raise ValueError(
                "should be a path on this machine that ends in .prom: the node exporter reads no other file"
            )
        return value if value is None else absolute(value)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            _zone(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = "give a name such as UTC or Europe/Berlin (slim images have UTC only: pip install tzdata)"
            raise ValueError(f"is not a time zone; {known}") from None
        return value

    @staticmethod
    def create(**fields: Any) -> NightlySpec:
        """Make a spec of plain data, and check its jobs. Raises ``SpecError``."""
        fields = {k: v for k, v in fields.items() if v is not None}
        spec = parse_spec(NightlySpec, fields)
        if spec.since is not None and spec.until is None:
            raise SpecError("since: needs `until` as well; a night is from `since` to `until`")
        if spec.drift.nights > spec.keep_nights:
            raise SpecError(
                f"drift.nights: {spec.drift.nights} nights to compare with, but keep_nights is {spec.keep_nights}; "
                "raise keep_nights"
            )
        outputs: dict[str, str] = {}
        for name in spec.datasets:
            if not isinstance(spec.allows_empty(name), bool):
                raise SpecError(f"datasets.{name}.allow_empty: got {spec.allows_empty(name)!r}; give true or false")
            job = spec.job_of(name, datetime.date(2000, 1, 1))
            other = outputs.setdefault(job.output.rstrip("/"), name)
            if other != name:
                raise SpecError(
                    f"datasets.{name}.output: {job.output!r} is also that of {other}; give each a separate output"
                )
        return spec

    @staticmethod
    def load(uri: str | Path) -> NightlySpec:
        """Read a spec from a YAML or JSON file at any fsspec URI."""
        return NightlySpec.create(**read_config(uri))

    def job_of(self, name: str, date: datetime.date) -> JobSpec:
        """Return the job of a dataset on a date: ``{date}`` and ``{date:%Y/%m/%d}`` are filled in."""
        where = f"datasets.{name}"
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
            raise SpecError(f"{where}: a dataset's name has letters, digits, -, _ and . only; give another")
        fields = merge(self.job, self.datasets[name])
        fields.pop("allow_empty", None)
        if self.storage_options:
            fields.setdefault("storage_options", self.storage_options)
        inputs, output = fields.get("inputs"), fields.get("output")
        if not isinstance(output, str) or is_blank(output):
            raise SpecError(f"{where}.output: required; give the folder or prefix that its masks go to")
        if fields.get("overwrite"):
            raise SpecError(f"{where}.overwrite: would delete every earlier night; choose another output instead")
        if fields.get("retry_errors"):
            raise SpecError(
                f"{where}.retry_errors: applies to one run only; use `segbatch run --retry-errors` with this output"
            )
        inputs = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(inputs, list) and all(isinstance(i, str) for i in inputs):
            if any(map(DATE.search, inputs)) != bool(DATE.search(output)):
                raise SpecError(
                    f"{where}: {{date}} must be in both inputs and output or in neither: without it in the output, the "
                    "shards of one date would replace those of another"
                )
            fields["inputs"] = [dated_uri(i, date) for i in inputs]
            fields["output"] = dated_uri(output, date)
        try:
            return JobSpec.create(**fields)
        except SpecError as e:
            raise SpecError("\n".join(f"{where}: {line}" for line in str(e).splitlines())) from None

    def allows_empty(self, name: str) -> bool:
        """Whether a dataset may have nothing delivered."""
        value: bool = merge(self.job, self.datasets[name]).get("allow_empty", self.allow_empty)
        return value

    @property
    def log_format(self) -> str:
        """``json`` if it is the log_format of every dataset."""
        formats = {merge(self.job, dataset).get("log_format") for dataset in self.datasets.values()}
        return "json" if formats == {"json"} else "text"

    def inputs_of(self, name: str) -> list[str]:
        """Return the inputs of a dataset as they are configured, with ``{date}``."""
        inputs = merge(self.job, self.datasets[name])["inputs"]
        return [inputs] if isinstance(inputs, str) else list(inputs)

    def ending(self, until: str) -> NightlySpec:
        """Return the spec with another ``until``, or "none", and without ``since``. Raises ``SpecError``."""
        fields = self.model_dump(exclude={"since", "until"}, exclude_none=True)
        return NightlySpec.create(**fields, until=None if until == "none" else until)

    def dated(self, name: str) -> bool:
        """Whether a dataset has a part for each date, so that a date can be backfilled."""
        return DATE.search(merge(self.job, self.datasets[name])["output"]) is not None

    def storage_options_of(self, output: str) -> dict[str, Any]:
        """Return the storage_options of the dataset that has an output, of whatever date."""
        for dataset in self.datasets.values():
            fields = merge(self.job, dataset)
            literals = re.split(r"\{date[^{}]*\}", absolute(fields["output"]))
            if re.fullmatch(".+".join(map(re.escape, literals)), absolute(output)):
                options: dict[str, Any] = fields.get("storage_options", self.storage_options)
                return options
        return self.storage_options

    def hours(self, now: float) -> Hours:
        """Return the night in which ``now`` (Unix time) is, or which begins with it."""
        local = datetime.datetime.fromtimestamp(now, _zone(self.timezone))
        if self.until is None:
            return Hours(local.date(), None, True)
        deadline = _next(local, self.until)
        if self.since is None:
            return Hours(local.date(), deadline.timestamp(), True)
        begin = _next(deadline - datetime.timedelta(days=1), self.since)
        return Hours(begin.date(), deadline.timestamp(), begin <= local)


@dataclass(frozen=True)
class Hours:
    """The hours of a night.

    Attributes:
        date: The date on which it begins.
        deadline: In Unix time; None without one.
        has_begun: Whether it has begun.
    """

    date: datetime.date
    deadline: float | None
    has_begun: bool


def _zone(name: str) -> datetime.tzinfo:
    return datetime.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def _next(after: datetime.datetime, clock: datetime.time) -> datetime.datetime:
    """Return the first ``clock`` time in the time zone of ``after`` that is later."""
    candidate = datetime.datetime.combine(after.date(), clock, after.tzinfo)
    return (
        candidate
        if candidate > after
        else datetime.datetime.combine(candidate.date() + datetime.timedelta(1), clock, candidate.tzinfo)
    )


def dated_uri(text: str, date: datetime.date) -> str:
    """Fill a date into a path or URI."""
    return DATE.sub(lambda match: date.strftime(match[1] or "%Y-%m-%d"), text)
