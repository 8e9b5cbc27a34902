"""Alerts of a night: drift only against a norm, which one or two earlier nights are not."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from segbatch.config.nightly import NightlySpec
from segbatch.operations.nightly.judge import judge
from segbatch.operations.nightly.record import DRIFT, DatasetReport, NightReport
from segbatch.output.totals import SparseTotals

TODAY = datetime.date(2026, 11, 20)
DATASETS = {name: {"inputs": f"in/{name}", "output": f"out/{name}"} for name in ("street", "field")}
DAY, DARK = (90, 10), (10, 90)


def entry(images: int, pixels: tuple[int, int] = DAY, model: str = "m") -> DatasetReport:
    """New images whose pixels are of two classes, in these shares."""
    classes = [(c, images, images * n, images * n * 1024) for c, n in enumerate(pixels)]
    totals = SparseTotals(records=images, classes=classes)
    confidence = [0] * 10 + [images]
    return DatasetReport(output="o", model=model, classes=["a", "b"], totals=totals, confidence=confidence)


def nights(*entries: DatasetReport, name: str = "street") -> list[NightReport]:
    """Nights with these entries, the last first."""
    days = [str(TODAY - datetime.timedelta(i + 1)) for i in range(len(entries))]
    return [NightReport(date=d, started="", datasets={name: e}) for d, e in zip(days, entries, strict=True)]


def judged(tonight: DatasetReport, earlier: list[NightReport], **drift: Any) -> DatasetReport:
    spec = NightlySpec.create(state="s", datasets=DATASETS, drift=drift)
    judge(tonight, "street", earlier, spec, TODAY)
    return tonight


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_nights_than_min_runs_are_no_norm(count: int) -> None:
    found = judged(entry(120, DARK), nights(*[entry(120)] * count))
    assert (found.exit_code, found.alerts, found.drift, found.compared_with) == (0, [], [], [])
    assert found.notes[0].startswith(f"drift is not judged yet ({count} of 3 nights): ")


def test_from_min_runs_nights_on_a_shift_is_an_alert() -> None:
    found = judged(entry(120, DARK), nights(*[entry(120)] * 3))
    assert (found.exit_code, found.notes) == (DRIFT, [])
    assert found.compared_with == ["2026-11-17", "2026-11-18", "2026-11-19"]
    assert judged(entry(120, DARK), nights(entry(120)), min_runs=1).exit_code == DRIFT
    assert judged(entry(120), nights(*[entry(120)] * 3)).exit_code == 0


def test_nights_that_cannot_be_compared_do_not_count() -> None:
    """Those of another dataset, of other settings, with nothing new, and with a few images only."""
    others = [
        nights(*[entry(120)] * 4, name="field"),
        nights(*[entry(120, model="older")] * 4),
        nights(*[DatasetReport(output="o", state="done", model="m", classes=["a", "b"])] * 4),
        nights(*[entry(2)] * 4),
    ]
    for earlier in others:
        found = judged(entry(120, DARK), earlier)
        assert found.exit_code == 0
        assert "(0 of 3 nights)" in found.notes[0]


def test_a_night_of_few_images_is_not_judged() -> None:
    found = judged(entry(20, DARK), nights(*[entry(120)] * 3))
    assert (found.exit_code, found.drift) == (0, [])
    assert "20 images, fewer than drift.min_images = 100" in found.notes[0]


def test_min_runs_is_never_more_than_the_nights_that_are_compared() -> None:
    assert judged(entry(120, DARK), nights(*[entry(120)] * 3), nights=2).exit_code == DRIFT
    assert "(1 of 2 nights)" in judged(entry(120, DARK), nights(entry(120)), nights=2).notes[0]
