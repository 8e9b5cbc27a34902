"""The nights of an output in its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.operations.report import ReportOptions, build_report
from segbatch.output.catalog import ShardRow, ShardSums
from segbatch.output.output import Output
from segbatch.output.totals import SparseTotals
from segbatch.report.nights import Nights
from segbatch.report.page import render

FORMAT1 = Path(__file__).parents[1] / "fixtures/format1"
LABELS = LabelSet.of(("road", "sky"))


def row(name: str, night: str, road: int, *, change: str = "new", removed: str | None = None) -> ShardRow:
    pixels = [(0, 10, road, road * 512), (1, 10, 1000 - road, (1000 - road) * 1024)]
    totals = SparseTotals(records=10, errors={"read/MissingObject": 1}, classes=pixels)
    sums = ShardSums(totals=totals, bytes=1)
    return ShardRow(name=name, uri="", shard_id=f"{name}.0", night=night, change=change, removed=removed, sums=sums)


def test_shards_are_summed_by_the_night_that_has_promoted_them() -> None:
    rows = [
        row("a", "", 100),
        row("b", "2026-11-20", 200),
        row("c", "2026-11-21", 300),
        row("d", "2026-11-21", 500, change="changed"),
        row("e", "2026-11-20", 900, removed="2026-11-21"),
    ]
    nights = Nights.of(rows, LABELS, None)
    assert nights is not None
    assert [(n.date, n.new, n.changed, n.images) for n in nights.nights] == [
        ("", 1, 0, 9),
        ("2026-11-20", 1, 0, 9),
        ("2026-11-21", 1, 1, 18),
    ]
    assert nights.removed == 1
    assert nights.nights[2].share(0) == 0.4
    shares = next(line for line in nights.lines if line.title == "Share of road")
    assert [title for _, _, title in shares.points] == ["2026-11-20: 20.0%", "2026-11-21: 40.0%"]


def test_an_output_without_nights_has_none() -> None:
    assert Nights.of([row("a", "", 100)], LABELS, None) is None


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """An output of two nights, whose reports name where it is."""
    for name in ("night-out", "state"):
        shutil.copytree(FORMAT1 / name, tmp_path / name)
    for path in tmp_path.glob("state/nights/*/night.json"):
        night = json.loads(path.read_text())
        night["datasets"]["street"] |= {
            "output": str(tmp_path / "night-out"),
            "alerts": ["drift of share of pixels: <b>bright</b> 12.1% → 55.3%"] if "12-01" in path.parent.name else [],
        }
        path.write_text(json.dumps(night))
    config = {"state": str(tmp_path / "state"), "datasets": {"street": {"inputs": ["in"], "output": "night-out"}}}
    (tmp_path / "nightly.yaml").write_text(json.dumps(config))
    return tmp_path


def test_the_alerts_of_the_last_night_are_those_of_the_report(corpus: Path) -> None:
    output = Output.open(str(corpus / "night-out"))
    report = build_report(output, ReportOptions(nightly=str(corpus / "nightly.yaml")))
    assert report.nights is not None
    assert report.nights.judgement is not None
    assert report.nights.judgement.date == "2026-12-01"
    assert report.verdict.level == "bad"
    assert report.verdict.findings[0].text.startswith("last night: drift of share of pixels: <b>bright</b>")
    assert b"<b>bright</b>" not in render("report.html.j2", report)


def test_a_configuration_of_other_nights_is_refused(corpus: Path) -> None:
    shutil.copytree(corpus / "night-out", corpus / "other")
    with pytest.raises(SpecError, match=r"no report of its last 30 nights names .*/other; give the configuration"):
        build_report(Output.open(str(corpus / "other")), ReportOptions(nightly=str(corpus / "nightly.yaml")))
