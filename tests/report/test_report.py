"""``segbatch report``: what it says about outputs of every state, and where it writes."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from segbatch.cli import app as cli
from segbatch.cli.report import report_of_run
from segbatch.config.job import JobSpec
from segbatch.errors import SpecError
from segbatch.operations.report import MAX_BYTES, ReportOptions, build_report, write_report
from segbatch.output.output import Output
from segbatch.planning.inline import execute
from segbatch.planning.plan import Plan, make_plan
from segbatch.report.run_report import RunReport
from tests import here
from tests.corpus import photographs, write_folder, write_tar
from tests.reporters import Said


def built(output: Path, **options: object) -> RunReport:
    return build_report(Output.open(str(output)), ReportOptions(**options))  # type: ignore[arg-type]


def findings(report: RunReport) -> dict[str, str]:
    return {finding.text: finding.level for finding in report.verdict.findings}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of six images, one of them broken, and a file that is skipped."""
    files = [*photographs(5, side=80), ("page.jpg", b"<html>gone</html>"), ("notes.docx", b"-")]
    return write_folder(tmp_path_factory.mktemp("report") / "in", files)


@pytest.fixture(scope="module")
def output(folder: Path) -> Path:
    """An output of that corpus, refined, with previews."""
    here.run(here.spec([str(folder)], folder.parent / "out", refiner="densecrf"))
    return folder.parent / "out"


def test_the_numbers_are_those_of_the_run(output: Path) -> None:
    report, record = built(output), Output.open(str(output)).record
    assert report.verdict.headline == "Complete: 5 of 6 records have a mask, 1 failed"
    assert ("5", "masks") in report.tiles
    totals = record.sums()
    assert {c.row.class_id: c.row.pixels for c in report.classes} == {k: n for k, n in enumerate(totals.pixels) if n}
    assert [(e.kind, e.count, e.examples[0].image_id) for e in report.errors] == [
        ("decode/UnknownFormat", 1, "page.jpg")
    ]
    assert report.skipped == ("1 with an unknown suffix: notes.docx",)
    assert findings(report)["16.67% of the records are errors, more than max_error_fraction 1.00%"] == "alert"
    assert report.verdict.level == "bad"
    assert "1 error, 16.67% of the records, no more than max_error_fraction 20.00%" in findings(
        built(output, max_error_fraction=0.2)
    )


def test_images_are_those_that_the_run_has_kept_beside_the_masks_of_the_network(output: Path) -> None:
    report = built(output)
    assert report.sample.is_all
    assert report.gallery.compared == 5
    assert (report.gallery.left, report.gallery.right) == ("dense CRF", "network")
    assert [bool(card.photograph) for card in report.gallery.cards] == [True] * 5 + [False]
    assert report.gallery.cards[-1].error == "decode/UnknownFormat"


def test_images_are_read_again_where_the_run_has_kept_none_or_the_mask_is_shown_alone(
    folder: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "in"
    shutil.copytree(folder, inputs)
    here.run(here.spec([str(inputs)], tmp_path / "out", report_samples=0))
    report = built(tmp_path / "out")
    assert (report.gallery.compared, report.sample.problems) == (0, ())
    assert all(card.photograph for card in report.gallery.cards[:5])
    inputs.rename(tmp_path / "moved")
    report = built(tmp_path / "out")
    assert not any(card.photograph for card in report.gallery.cards)
    assert report.sample.problems[0].startswith("5 images are not available, so their masks are shown alone: ")
    assert all(card.photograph for card in built(tmp_path / "out", inputs=[str(tmp_path / "moved")]).gallery.cards[:5])


def test_a_sample_of_no_images_reads_none(output: Path) -> None:
    report = built(output, samples=0)
    assert (report.gallery.cards, report.sample.rule) == ((), "The page shows no images.")
    assert report.classes
    with pytest.raises(SpecError, match="samples: got -1"):
        ReportOptions(samples=-1)


def test_an_unfinished_output_is_reported_as_such(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", photographs(12, side=24))

    def interrupted(plan: Plan):  # type: ignore[no-untyped-def]
        yield from itertools.islice(execute(plan), 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here.run(here.spec([str(tmp_path / "in")], tmp_path / "out"), interrupted)
    report = built(tmp_path / "out")
    assert report.verdict.headline == "Not finished: 8 masks and 0 errors so far"
    assert report.verdict.level == "warning"
    assert any("(1 shard begun and incomplete); the same command resumes" in text for text in findings(report))
    assert len(report.gallery.cards) == 8


def test_an_empty_output_has_a_report(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [])
    here.run(here.spec([str(tmp_path / "in")], tmp_path / "out"))
    written = write_report(str(tmp_path / "out"))
    assert (written.headline, written.images) == ("Complete, and empty: the inputs hold no record", 0)


def test_the_job_computes_the_same_rows(output: Path, tmp_path: Path) -> None:
    """The chunks and the fingerprint of the plan are those of the output."""
    fields = yaml.safe_load(built(output).job)
    assert {"inputs", "output", "model", "refiner", "crf", "chunk_size", "precision", "prune"} >= fields.keys()
    plan = make_plan(JobSpec.create(**fields))
    assert plan.is_complete
    assert plan.job.record().fingerprint == Output.open(str(output)).record.fingerprint


def test_the_report_belongs_to_the_output_and_no_other_file_is_replaced(output: Path, tmp_path: Path) -> None:
    copied = tmp_path / "out"
    shutil.copytree(output, copied)
    first, second = (write_report(str(copied)) for _ in range(2))
    assert first.address == second.address == f"{copied}/report.html"
    assert not (copied / ".tmp").exists()
    page = (copied / "report.html").read_bytes()
    assert len(page) == second.size_bytes < MAX_BYTES
    assert not re.search(rb'(src|href)="(?!data:|#)', page)
    assert any("report.html" in line for line in Output.open(str(copied)).describe_clear())
    (copied / "report.html").write_text("mine")
    with pytest.raises(SpecError, match="would be replaced; choose a file by --to"):
        write_report(str(copied))
    with pytest.raises(SpecError, match="would be replaced; choose another file"):
        write_report(str(copied), to=copied / "report.html")
    with pytest.raises(SpecError, match=r"there is no folder .*/nowhere; create it"):
        write_report(str(copied), to=tmp_path / "nowhere" / "a.html")
    assert (copied / "report.html").read_text() == "mine"
    assert write_report(str(copied), to=tmp_path / "a.html").address == str(tmp_path / "a.html")


def test_an_output_of_an_earlier_version_has_a_report() -> None:
    outputs = sorted(path.parent for path in (Path(__file__).parents[1] / "fixtures").rglob("run.json"))
    assert outputs
    for path in outputs:
        report = built(path)
        assert (len(report.classes), bool(report.facts)) == (len({c.row.name for c in report.classes}), True)
        assert json.dumps(report.job)


def test_the_command_says_where_the_report_is_and_how_to_open_it(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my report.html"
    monkeypatch.setattr(sys, "argv", ["segbatch", "report", str(output), "--to", str(file), "--samples", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.run_command()
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert (ended.value.code or 0, lines[0]) == (0, "Complete: 5 of 6 records have a mask, 1 failed")
    assert re.fullmatch(rf"report: '{file}' \([\d.]+ kB, 3 images\); open it in a browser", lines[1])
    assert "reading rows" in printed.err
    assert file.read_bytes().count(b'<figure class="card"') == 4


def test_a_report_that_cannot_be_written_does_not_fail_the_run(output: Path, tmp_path: Path) -> None:
    copied, said = tmp_path / "out", Said([])
    shutil.copytree(output, copied)
    spec = JobSpec.create(inputs=["in"], output=str(copied), max_error_fraction=0.5)
    written = report_of_run(spec, said)
    assert written is not None
    assert b'<section class="verdict bad"' not in (copied / "report.html").read_bytes()  # by its limit of errors
    (copied / "report.html").write_text("mine")
    assert report_of_run(spec, said) is None
    assert any("no report was written: " in text and "is not a report of segbatch" in text for text in said.lines)
