"""The configuration of nights: what is wrong is said before any work, and which night a moment belongs to."""

from __future__ import annotations

import datetime
import re
import zoneinfo
from pathlib import Path
from typing import Any

import pytest

from segbatch.config.nightly import NightlySpec
from segbatch.errors import SpecError
from segbatch.operations.nightly.schedule import select_datasets

DATASETS: dict[str, Any] = {"street": {"inputs": ["s3://b/in/*.tar"], "output": "s3://b/out"}}
DATED = {"inputs": "s3://b/{date:%Y/%m/%d}/*.tar", "output": "s3://b/out/{date}"}


def spec(**more: Any) -> NightlySpec:
    return NightlySpec.create(**{"state": "s3://b/state", "datasets": DATASETS, **more})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"datasest": {}}, r"unknown key 'datasest'; did you mean 'datasets'\?"),
        ({"drift": {"pis": 1}}, r"unknown key 'drift.pis'; did you mean 'drift.psi'\?"),
        ({"webhook": {"url": "https://h", "timeuot": 1}}, r"did you mean 'webhook.timeout'\?"),
        ({"webhook": {"url": "ftp://h/SECRET"}}, r"webhook.url: got \(hidden\); .*begins with https://"),
        ({"webhook": "https://h/SECRET"}, r"webhook: got \(hidden\)"),
        ({"job": {"modle": "x"}}, r"datasets.street: unknown key 'modle'; did you mean 'model'\?"),
        ({"datasets": {"a": {**DATASETS["street"], "crf": {"theta": 1}}}}, r"datasets.a: unknown key 'crf.theta'"),
        ({"datasets": {"a": {"inputs": ["x"]}}}, r"datasets.a.output: required"),
        ({"datasets": {"a": {"output": "x"}}}, r"datasets.a: inputs: required"),
        ({"datasets": {}}, r"datasets: got {}"),
        ({"state": " "}, r'state: got " "; is empty or blank'),
        ({"datasets": {"a": {"inputs": ["x", ""], "output": "y"}}}, r'datasets.a: inputs: got \["x", ""\]; is empty'),
        ({"datasets": {"a": {"inputs": ["x"], "output": " "}}}, r"datasets.a.output: required"),
        ({"datasets": {"a/b": DATASETS["street"]}}, r"datasets.a/b: a dataset's name has letters"),
        ({"datasets": {"a": DATASETS["street"], "b": DATASETS["street"]}}, r"datasets.b.output: .* is also that of a"),
        ({"datasets": {"a": DATED | {"output": "s3://b/out"}}}, r"datasets.a: {date} must be in both inputs and out"),
        ({"job": {"overwrite": True}}, r"datasets.street.overwrite: would delete every earlier night"),
        (
            {"job": {"retry_errors": True}},
            r"datasets.street.retry_errors: applies to one run only; use `segbatch run --retry-errors`",
        ),
        ({"until": 360}, r'until: got 360; .*in quotes, such as "06:00"'),
        ({"until": "25:00"}, r'until: got "25:00"; .*such as "06:00"'),
        ({"since": "22:00"}, r"since: needs `until`"),
        ({"timezone": "Mars/Olympus"}, r'timezone: got "Mars/Olympus"; .*is not a time zone'),
        ({"keep_nights": 7}, r"drift.nights: 14 nights to compare with, but keep_nights is 7"),
        ({"drift": {"psi": 0}}, r"drift.psi: got 0"),
        ({"lease_seconds": 1}, r"lease_seconds: got 1"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as e:
        spec(**fields)
    assert re.search(says, str(e.value)), str(e.value)
    assert e.value.exit_code == 2
    assert "SECRET" not in str(e.value)


def test_keys_for_all_datasets_and_of_one(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(
        "state: s3://b/state\nuntil: 6:30\nstorage_options: {key: SECRET}\n"
        "job: {model: 'null', crf: {theta_beta: 13}, batch_size: 2}\n"
        "datasets:\n  a: {inputs: s3://b/a/*.tar, output: s3://b/oa}\n"
        "  b: {inputs: [s3://b/b/*.tar], output: s3://b/ob, batch_size: 4, crf: {iterations: 5}, storage_options: {}}\n"
    )
    with pytest.raises(SpecError, match=r"until: got 390; .*in quotes"):
        NightlySpec.load(path)
    path.write_text(path.read_text().replace("6:30", "'6:30'"))
    loaded = NightlySpec.load(path)
    a, b = (loaded.job_of(name, datetime.date(2026, 11, 20)) for name in "ab")
    assert (a.model, a.batch_size, a.crf["theta_beta"], a.storage_options) == ("null", 2, 13, {"key": "SECRET"})
    assert (b.model, b.batch_size, b.crf["theta_beta"], b.crf["iterations"]) == ("null", 4, 13, 5)
    assert b.storage_options == {}
    assert loaded.until == datetime.time(6, 30)
    assert "SECRET" not in repr(loaded)


def test_a_date_fills_inputs_and_output() -> None:
    found = spec(datasets={"a": DATED}).job_of("a", datetime.date(2026, 3, 9))
    assert (found.inputs, found.output) == (["s3://b/2026/03/09/*.tar"], "s3://b/out/2026-03-09")


def test_a_date_is_made_up_for_where_inputs_have_dates() -> None:
    both = spec(datasets={"a": DATED, **DATASETS})
    day = datetime.date(2026, 3, 9)
    assert select_datasets(both, (), None) == ["a", "street"]
    assert select_datasets(both, (), day) == ["a"]
    assert select_datasets(both, ("street",), None) == ["street"]
    with pytest.raises(SpecError, match="street cannot be backfilled by date"):
        select_datasets(both, ("street",), day)
    with pytest.raises(SpecError, match="--dataset: there is no 'stret'; there are a, street"):
        select_datasets(both, ("stret",), None)


@pytest.mark.parametrize(
    ("moment", "night", "ends", "begun"),
    [
        ("2026-11-20 21:59", "2026-11-20", "2026-11-21 06:00", False),
        ("2026-11-20 22:00", "2026-11-20", "2026-11-21 06:00", True),
        ("2026-11-21 01:00", "2026-11-20", "2026-11-21 06:00", True),
        ("2026-11-21 05:59", "2026-11-20", "2026-11-21 06:00", True),
        ("2026-11-21 06:08", "2026-11-21", "2026-11-22 06:00", False),
        ("2026-03-29 01:30", "2026-03-28", "2026-03-29 06:00", True),  # an hour is skipped at two
    ],
)
def test_the_night_of_a_moment(moment: str, night: str, ends: str, begun: bool) -> None:
    """A restart after the deadline is not night: it must not compute all day."""
    found = spec(since="22:00", until="06:00", timezone="Europe/Berlin").hours(berlin(moment))
    assert (found.date.isoformat(), found.deadline, found.has_begun) == (night, berlin(ends), begun)


def test_a_night_without_hours_is_that_of_its_day() -> None:
    found = spec(timezone="Europe/Berlin").hours(berlin("2026-11-20 23:30"))
    assert (found.date.isoformat(), found.deadline, found.has_begun) == ("2026-11-20", None, True)
    found = spec(until="06:00", timezone="Europe/Berlin").hours(berlin("2026-11-20 23:30"))
    assert (found.date.isoformat(), found.deadline) == ("2026-11-20", berlin("2026-11-21 06:00"))
    assert spec(since="22:00", until="06:00").ending("none").hours(0.0).deadline is None
    assert spec(since="22:00", until="06:00").ending("08:00").hours(7 * 3600.0).deadline == 8 * 3600.0
    with pytest.raises(SpecError, match="until"):
        spec().ending("noon")


def berlin(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).timestamp()
