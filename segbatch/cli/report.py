"""The command that writes the report of an output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from segbatch.cli.arguments import MovedInputs, Output, StorageOptions, file_path, read_storage_options
from segbatch.cli.progress import reporting
from segbatch.cli.tables import print_text
from segbatch.cli.terminal import console, quoted
from segbatch.errors import SegbatchError
from segbatch.text import byte_size, counted

if TYPE_CHECKING:
    from segbatch.config.job import JobSpec
    from segbatch.operations.report import WrittenReport
    from segbatch.protocols import Reporter


def report(
    output: Output,
    inputs: MovedInputs = None,
    to: Annotated[
        Path | None,
        typer.Option(
            parser=file_path, metavar="FILE", help="file on this machine; by default report.html in the output"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, max=2000, metavar="N", help="maximum number of images")] = 200,
    nightly: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="configuration of the nightly runs, to show how the last night was judged"),
    ] = None,
    storage_options: StorageOptions = None,
) -> None:
    """Write one HTML page about an output: verdict, classes, distributions, images, errors.

    The page is one file of at most 8 MB that loads nothing. Images are those that the run has kept, or are read again.
    """
    options = read_storage_options(nightly if storage_options is None else storage_options, output)
    with reporting("reading the output") as reporter:
        from segbatch.operations.report import ReportOptions, write_report

        request = ReportOptions(samples=samples, inputs=inputs or None, nightly=nightly)
        written = write_report(output, to=to, options=request, storage_options=options, reporter=reporter)
    written_report(console, written)


def report_of_run(spec: JobSpec, reporter: Reporter) -> WrittenReport | None:
    """Write the report of a run that is done; a report that cannot be written is a warning, not the end of the run."""
    from segbatch.operations.report import ReportOptions, write_report

    options = ReportOptions(max_error_fraction=spec.max_error_fraction)
    try:
        return write_report(spec.output, options=options, storage_options=spec.storage_options, reporter=reporter)
    except SegbatchError as e:
        reporter.warning(f"no report was written: {e}")
        return None


def written_report(console: Console, written: WrittenReport) -> None:
    """Print what a report is about, what it lacks, and how to open it."""
    for note in written.notes:
        print_text(console, note)
    print_text(console, written.headline)
    size = f"{byte_size(written.size_bytes)}, {counted(written.images, 'image')}"
    is_remote = "://" in written.address
    how = "copy it to this machine, and open it in a browser" if is_remote else "open it in a browser"
    print_text(console, f"report: {quoted(written.address)} ({size}); {how}")
