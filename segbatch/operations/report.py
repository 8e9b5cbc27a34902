"""Write the report of an output: one HTML page about all rows, with a sample of the images."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from segbatch.errors import SpecError
from segbatch.logs import LogReporter
from segbatch.operations.nightly.reports import dates, read_night
from segbatch.operations.page_file import MAX_BYTES, refuse_foreign, write_page
from segbatch.operations.photographs import read_photographs
from segbatch.output.output import Output
from segbatch.output.report_file import write_report as write_into
from segbatch.protocols import Reporter
from segbatch.records import Preview
from segbatch.report import facts
from segbatch.report.cards import Images, cards_of, error_cards
from segbatch.report.gallery import Gallery
from segbatch.report.nights import Drift, Judgement, Nights
from segbatch.report.page import fill, render
from segbatch.report.run_report import (
    RunReport,
    Sample,
    class_lines,
    error_kinds,
    histograms,
    missing_images,
    sampling_rule,
    tiles_of,
)
from segbatch.report.sampling import Choice, Sampler
from segbatch.report.scan import read_rows, scan
from segbatch.report.summary import Summary
from segbatch.report.verdict import State, Verdict
from segbatch.results.originals import Originals
from segbatch.results.row import MaskRow
from segbatch.storage.store import Store
from segbatch.storage.uri import absolute
from segbatch.text import duration

_NOTE_BYTES = 20_000  # what is written about the images, and their controls
_REFINERS = {"densecrf": "dense CRF", "crfasrnn": "CRF-RNN", "dpn": "DPN"}
_NIGHTS = 30  # reports of nights that are searched for this output
_MAX_ERROR_FRACTION = JobSpec.model_fields["max_error_fraction"].default


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows, and where it finds what the output does not hold.

    Attributes:
        samples: Maximum number of images; fewer where they would exceed 8 MB.
        inputs: Where the inputs are now; None for those of the run. Images that the run has kept are not read again.
        nightly: The configuration of nightly runs, whose reports of this output are shown.
        max_error_fraction: Share of error rows above which the report has an alert.
    """

    samples: int = 200
    inputs: Sequence[str] | None = None
    nightly: str | None = None
    max_error_fraction: float = _MAX_ERROR_FRACTION

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise SpecError(f"samples: got {self.samples}; give a number of images, or 0 for none")


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written.

    Attributes:
        address: Its path or URI, redacted.
        size_bytes: Its size.
        images: Number of images in it.
        headline: The first line of its verdict.
        notes: What it lacks, one line each.
    """

    address: str
    size_bytes: int
    images: int
    headline: str
    notes: tuple[str, ...]


def write_report(
    output: str,
    *,
    to: str | Path | None = None,
    options: ReportOptions | None = None,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> WrittenReport:
    """Write the report of an output, finished or not, as one self-contained HTML page of at most about 8 MB.

    Reads the columns of all rows without their masks, then the rows that are shown. Images are those that the run has
    kept; others are read again from its inputs.

    Args:
        output: The folder or prefix that was ``--output`` of the run.
        to: A file on this machine; by default report.html in the output.
        options: What the report shows.
        storage_options: Passed to fsspec.
        reporter: Receives the progress; by default the logger ``segbatch`` does.

    Raises:
        SegbatchError: There is no output, a file of it cannot be read, or the page cannot be written.
    """
    options, reporter = options or ReportOptions(), reporter or LogReporter()
    opened = Output.open(output, storage_options)
    if to is not None:
        refuse_foreign(Path(to))
    report = build_report(opened, options, storage_options, reporter)
    page = render("report.html.j2", report)
    address = write_into(opened.store, page) if to is None else write_page(Path(to), page)
    images = sum(not card.error for card in report.gallery.cards)
    return WrittenReport(address, len(page), images, report.verdict.headline, report.sample.problems)


def build_report(
    output: Output,
    options: ReportOptions,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> RunReport:
    """Collect what the report of an output shows."""
    return _Builder(output, options, storage_options, reporter or Reporter()).build()


@dataclass(frozen=True)
class _Builder:
    """Collects what the report of an output shows."""

    output: Output
    options: ReportOptions
    storage_options: dict[str, Any] | None
    reporter: Reporter

    def build(self) -> RunReport:
        record, ledger = self.output.record, self.output.ledger()
        files, summary = ledger.files(), Summary(record.labels)
        previews = {preview.image_id: preview for preview in self.output.previews()} if self.options.samples else {}
        sampler = Sampler(self.options.samples, len(record.labels), previews.keys())
        self.reporter.phase("reading rows", len(files))
        scan(self.output, files, summary, sampler, self.reporter)
        judgement = self._judgement()
        state = State(
            is_finished=record.state == "done",
            incomplete_shards=sum(not shard.is_complete for shard in ledger.shards.values()),
            failed_shards=self._failed_shards(summary),
            skipped=record.all_skipped,
            max_error_fraction=self.options.max_error_fraction,
            alerts=judgement.alerts if judgement else (),
        )
        report = _report(self.output, summary, state, judgement)
        choices = sampler.choose()
        rows = read_rows(self.output, files, [(c.candidate.file, c.candidate.row) for c in choices])
        return _with_images(report, summary, choices, rows, self._images(rows, previews))

    def _failed_shards(self, summary: Summary) -> Sequence[str]:
        if not summary.totals.failed_shards:
            return ()
        self.output.load()
        return self.output.failed_shards()

    def _images(self, rows: Sequence[MaskRow], previews: Mapping[str, Preview]) -> Images:
        """Read the images of rows again that have no preview, each reduced to the size in which it is shown."""
        photographs, problems = {}, {}
        originals = Originals(self.output, inputs=self.options.inputs, storage_options=self.storage_options)
        wanted = [row for row in rows if row.image_id not in previews]
        self.reporter.phase("reading images", len(wanted))
        for image_id, uri, problem in read_photographs(originals, wanted):
            if uri:
                photographs[image_id] = uri
            if problem:
                problems[image_id] = problem
            self.reporter.advanced()
        is_refined = self.output.record.spec.get("refiner") != "none"
        return Images(previews, photographs, problems, is_refined)

    def _judgement(self) -> Judgement | None:
        """Read how the last night with this output was judged; None without a configuration of nights."""
        if self.options.nightly is None:
            return None
        spec = NightlySpec.load(self.options.nightly)
        state = Store(spec.state, spec.storage_options)
        for date in list(reversed(dates(state)))[:_NIGHTS]:
            night = read_night(state, date)
            for entry in night.datasets.values() if night else ():
                if absolute(entry.output) == absolute(self.output.uri):
                    drift = tuple(Drift(**{name: d[name] for name in Drift.__annotations__}) for d in entry.drift)
                    lines = tuple(entry.alerts), tuple(entry.notes)
                    return Judgement(date, entry.state, *lines, drift, tuple(entry.compared_with))
        raise SpecError(
            f"{self.options.nightly}: no report of its last {_NIGHTS} nights names {self.output.uri}; give the "
            "configuration of the nights that write this output, or leave out --nightly"
        )


def _report(output: Output, summary: Summary, state: State, judgement: Judgement | None) -> RunReport:
    """Return the report without images."""
    record, records = output.record, summary.totals.records
    refiner = _REFINERS.get(str(record.spec.get("refiner", "")), "refined")
    lines = class_lines(summary)
    present = {line.row.class_id for line in lines}
    seconds = f"The last call took {duration(record.timings.seconds)}." if record.timings.seconds else ""
    return RunReport(
        name=output.uri.rstrip("/").rpartition("/")[2] or output.uri,
        location=output.uri,
        verdict=Verdict.of(state, summary),
        tiles=tiles_of(record, summary, len(present)),
        facts=tuple(facts.run_facts(record, output.uri)),
        classes=lines,
        absent=tuple(name for i, name in enumerate(summary.labels.names) if i not in present),
        confidence_name=record.confidence_name,
        charts=histograms(summary, record.confidence_name),
        gallery=Gallery((), summary.labels, refiner, "network"),
        sample=Sample(False, "", ()),
        errors=error_kinds(summary),
        stages=tuple(facts.stage_times(record, records)),
        seconds=seconds,
        nights=Nights.of(output.catalog().values(), summary.labels, judgement),
        skipped=tuple(record.all_skipped.lines()),
        job=facts.job_yaml(record, output.uri),
        command=shlex.quote(output.uri),
    )


def _with_images(
    report: RunReport, summary: Summary, choices: Sequence[Choice], rows: Sequence[MaskRow], images: Images
) -> RunReport:
    """Add the gallery to a report, as far as the page stays within ``MAX_BYTES``."""
    is_all = len(choices) == summary.masks
    left = MAX_BYTES - _NOTE_BYTES - len(render("report.html.j2", report))
    errors = error_cards(summary) if choices else ()
    cards = itertools.chain(errors, cards_of(choices, rows, images, summary.labels, is_all))
    gallery = fill(report.gallery, cards, left)
    left_out = len(choices) - sum(not card.error for card in gallery.cards)
    ordered = sorted(gallery.cards, key=lambda card: (bool(card.error), card.confidence or 0))
    sample = Sample(is_all and not left_out, sampling_rule(choices, summary.masks), missing_images(images, left_out))
    return replace(report, gallery=replace(gallery, cards=tuple(ordered)), sample=sample)
