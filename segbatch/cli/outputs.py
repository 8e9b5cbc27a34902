"""Commands that look at outputs and networks: stats, errors, verify, compact, models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segbatch.cli import networks
from segbatch.cli import tables as show
from segbatch.cli.arguments import Address, AsJson, MovedInputs, Output, StorageOptions, read_storage_options
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console, quoted

if TYPE_CHECKING:
    from segbatch.config.job import JobSpec
    from segbatch.operations.finish import RunResult
    from segbatch.operations.verify import Verification


def stats(
    output: Output,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Print images, pixels, share and confidence of each class."""
    from segbatch.results.dataset import MaskDataset

    dataset = MaskDataset.open(output, storage_options=read_storage_options(storage_options, output))
    show.stats(console, dataset, as_json)


def errors(
    output: Output,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="maximum number of rows to print")] = 20,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Print how many error rows of each type there are, and the first."""
    from segbatch.results.dataset import MaskDataset

    dataset = MaskDataset.open(output, storage_options=read_storage_options(storage_options, output))
    show.errors(console, dataset.totals, list(dataset.errors(limit)), as_json)


def verify(
    output: Output,
    inputs: MovedInputs = None,
    read_input: Annotated[
        bool, typer.Option("--read-input", help="also read the inputs, and compare every id")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="recompute what is damaged or missing, and nothing else")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Check that each input record is in an output exactly once.

    Files must be readable, and the statistics equal to those of the rows.
    """
    options = read_storage_options(storage_options, output)

    def checked() -> Verification:
        with reporting("reading the output"):
            from segbatch.operations.verify import verify as verify_output

            return verify_output(output, inputs=inputs or None, storage_options=options, read_input=read_input)

    report = checked()
    if repair and not report.ok:
        if not as_json:
            show.verification(console, report)
        with reporting("loading Ray") as reporter:
            from segbatch.operations.repair import repair as repair_output
            from segbatch.operations.run import run as run_job

            def compute(spec: JobSpec) -> RunResult:
                return run_job(spec.model_copy(update={"address": address}), reporter=reporter)

            repair_output(output, report, compute, inputs or None, options, reporter)
        report = checked()
    if as_json:
        console.print_json(data=report.to_json(), ensure_ascii=True)
    else:
        show.verification(console, report)
        if not report.ok:
            show.print_text(console, f"next: segbatch verify {quoted(output)} --repair")
    raise typer.Exit(0 if report.ok else 1)


def compact(
    output: Output,
    target_mb: Annotated[int, typer.Option(min=1, metavar="N", help="size of the merged files in megabytes")] = 128,
    storage_options: StorageOptions = None,
) -> None:
    """Merge small mask files into few large ones.

    Safe to kill: the same command resumes.
    """
    options = read_storage_options(storage_options, output)
    with reporting("reading the output") as reporter:
        from segbatch.operations.compact import compact as compact_output

        compaction = compact_output(output, target_bytes=target_mb * 10**6, storage_options=options, reporter=reporter)
    show.compaction(console, compaction)


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="network to describe in full")] = None,
    as_json: AsJson = False,
) -> None:
    """List networks, their weights, and the refiners."""
    from segbatch.models import entry, names

    infos = names() if name is None else entry(name).infos()
    if as_json:
        networks.models_as_json(console, infos)
    elif name is None:
        networks.models(console, infos)
    else:
        networks.model(console, infos)
