"""Commands that look at outputs and networks: stats, errors, verify, compact, models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from segbatch.cli import tables as show
from segbatch.cli.arguments import Limit, Output, RunConfig, read_storage_options
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console

if TYPE_CHECKING:
    from segbatch.operations.verify import Verification


def stats(
    output: Output,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    config: RunConfig = None,
) -> None:
    """Print images, pixels, share and confidence of each class in an output."""
    from segbatch.output.dataset import MaskDataset

    show.stats(console, MaskDataset.open(output, storage_options=read_storage_options(config, output)), as_json)


def errors(output: Output, limit: Limit = 20, config: RunConfig = None) -> None:
    """Print how many error rows of each type an output has, and the first of them."""
    from segbatch.output.dataset import MaskDataset

    dataset = MaskDataset.open(output, storage_options=read_storage_options(config, output))
    show.errors(console, dataset.totals, list(dataset.errors(limit)))


def verify(
    output: Output,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="inputs, if they were moved (default: those of the run)")
    ] = None,
    read_input: Annotated[
        bool, typer.Option("--read-input", help="also read the inputs, and compare every id")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="recompute what is damaged or missing, and nothing else")
    ] = False,
    config: RunConfig = None,
) -> None:
    """Check that an output has each input record exactly once, readable files, and the right statistics."""
    options = read_storage_options(config, output)

    def checked() -> Verification:
        with reporting("reading the output"):
            from segbatch.operations.verify import verify as verify_output

            report = verify_output(output, inputs=inputs or None, storage_options=options, read_input=read_input)
        show.verification(console, report, output)
        return report

    report = checked()
    if repair and not report.ok:
        with reporting("loading Ray") as reporter:
            from segbatch.operations.repair import repair as repair_output
            from segbatch.operations.run import run as run_job

            again = partial(run_job, reporter=reporter)
            repair_output(output, report, again, inputs or None, options, reporter)
        report = checked()
    raise typer.Exit(0 if report.ok else 1)


def compact(
    output: Output,
    target_mb: Annotated[int, typer.Option(min=1, help="size of the merged files in megabytes")] = 128,
    config: RunConfig = None,
) -> None:
    """Merge small mask files of a finished run into few large ones. Safe to kill: the same command resumes."""
    options = read_storage_options(config, output)
    with reporting("reading the output") as reporter:
        from segbatch.operations.compact import compact as compact_output

        compaction = compact_output(output, target_bytes=target_mb * 10**6, storage_options=options, reporter=reporter)
    show.compaction(console, compaction)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """List what --model and --weights accept: classes, size, source of the weights, published accuracy."""
    from segbatch.models import names

    show.models(console, names(), as_json)
