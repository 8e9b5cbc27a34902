"""Commands that compute masks: run, nightly, demo."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from segbatch.cli import tables as show
from segbatch.cli.arguments import Configs, Quiet, file_path, read_configs
from segbatch.cli.options import with_spec_options
from segbatch.cli.progress import reporting
from segbatch.cli.report import report_of_run, written_report
from segbatch.cli.terminal import console
from segbatch.config.job import JobSpec
from segbatch.errors import SegbatchError, SpecError


@with_spec_options()
def run(
    fields: dict[str, Any],
    config: Configs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan; nothing is written")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan or the result as JSON")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="write report.html into the output at the end, as segbatch report does")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Segment a corpus: image shards in, Parquet masks and statistics out.

    The same command resumes: chunks that are committed are not computed again.
    """
    spec = JobSpec.create(**read_configs(config, fields))
    if dry_run:
        _print_plan(spec, as_json, quiet)
        return
    structured = spec.log_format == "json"
    try:
        with reporting("loading Ray", spec.log_format, quiet) as reporter:
            from segbatch.operations.run import run as run_job

            outcome = run_job(spec, reporter=reporter)
            written = report_of_run(spec, reporter) if report else None
    except SegbatchError as e:
        if structured:  # it is in the log
            raise typer.Exit(e.exit_code) from None
        raise
    if as_json:
        address = {"report": written.address} if written is not None else {}
        console.print_json(data={**outcome.to_json(), **address}, ensure_ascii=True)
    elif not structured and (outcome.exit_code or not quiet):
        show.run_result(console, outcome)
        if written is not None:
            written_report(console, written)
        show.next_commands(console, outcome, has_report=written is not None)
    raise typer.Exit(outcome.exit_code)


def _print_plan(spec: JobSpec, as_json: bool, quiet: bool) -> None:
    with reporting("reading inputs", is_quiet=quiet):
        from segbatch.operations.explain import explain

        plan = explain(spec)
    if as_json:
        console.print_json(data=plan.to_json(), ensure_ascii=True)
    else:
        show.print_text(console, plan.to_text())


def nightly(
    config: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON file of the datasets (docs/nightly.md)")],
    date: Annotated[
        str | None, typer.Option(help="date to backfill, such as 2026-11-25, of datasets with {date} in their inputs")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="process only this dataset; may be repeated")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="deadline of this night, such as 06:00, or none; the configured hours are then ignored"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what is new; nothing is written")] = False,
    quiet: Quiet = False,
) -> None:
    """Process what is new in several datasets until a deadline.

    Masks are compared with those of earlier nights; a large difference is exit code 4.
    """
    from segbatch.config.nightly import NightlySpec

    spec = NightlySpec.load(config)
    day = _date(date)
    if dry_run:
        with reporting("reading inputs"):
            from segbatch.operations.nightly.explain import explain

            plan = explain(spec, date=day, only=dataset or (), until=until)
        show.print_text(console, plan)
        return
    structured = spec.log_format == "json"
    try:
        with reporting("loading Ray", spec.log_format, is_quiet=quiet) as reporter:
            from segbatch.operations.nightly.night import run_night
            from segbatch.operations.nightly.summary import to_markdown

            night = run_night(spec, date=day, only=dataset or (), until=until, reporter=reporter, config=config)
    except SegbatchError as e:
        if structured:  # it is in the log
            raise typer.Exit(e.exit_code) from None
        raise
    if night is not None:
        if not structured and (night.exit_code or not quiet):
            show.print_text(console, to_markdown(night))
        raise typer.Exit(night.exit_code)


def _date(given: str | None) -> datetime.date | None:
    try:
        return None if given is None else datetime.date.fromisoformat(given)
    except ValueError:
        raise SpecError(f"--date: {given!r} is not a date; write it as 2026-11-25") from None


def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            parser=file_path,
            metavar="PATH",
            help="folder for the results; replaces those of an earlier demonstration",
        ),
    ] = Path("demo-out"),
) -> None:
    """Segment four photographs of installed packages, without network access.

    A contact sheet and a report show each photograph, its mask by the network, and its mask after the CRF.
    """
    with reporting("loading Ray") as reporter:
        from segbatch.operations.demo import run_demo

        done = run_demo(output, reporter)
    show.run_result(console, done.result)
    show.print_text(console, f"look at {done.sheet}: photograph | network | after CRF")
    written_report(console, done.report)
    show.next_commands(console, done.result, has_report=True)
    raise typer.Exit(done.result.exit_code)
