"""The command select."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbatch.cli import tables as show
from segbatch.cli.arguments import AsJson, Output, StorageOptions, file_path, read_storage_options
from segbatch.cli.export import print_export
from segbatch.cli.progress import reporting
from segbatch.cli.query import print_json_rows, row_table
from segbatch.cli.terminal import console, log
from segbatch.text import counted

_SHOWN = ("rank", "image_id", "reason")
_MAX_ROWS = 20


def select(
    output: Output,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="S",
            help="least-confident, rare-class, disagreement, diverse; or several with the number of images of each, "
            "as least-confident=500,diverse=500",
        ),
    ] = "least-confident",
    number: Annotated[
        int | None, typer.Option("--number", "-n", min=1, metavar="N", help="number of images (default: 1000)")
    ] = None,
    other: Annotated[
        str | None, typer.Option("--other", metavar="OUTPUT", help="second output of the same images, for disagreement")
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(
            parser=file_path,
            metavar="FILE",
            help="images that are not chosen, such as labeled ones: a .parquet or .csv file with a column image_id, or "
            "text with one id per line",
        ),
    ] = None,
    per_source: Annotated[
        int | None, typer.Option("--per-source", min=1, metavar="K", help="maximum number of images of one input file")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="decides ties, and the first image of diverse")] = 0,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=file_path, metavar="FILE", help="write the list to a .parquet or .csv file"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file of --to")] = False,
    export: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--export",
            metavar="FORMAT TARGET",
            help="export these images alone, as `segbatch export --to FORMAT --output TARGET` does",
        ),
    ] = None,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Choose the images to label next.

    From the classes and confidences of the rows: no image is read, and masks for disagreement alone.

    least-confident: lowest mean confidence of the pixels without background. rare-class: classes that are rare in the
    output and among the chosen images. disagreement: lowest mean IoU with the masks of --other. diverse: fractions of
    classes unlike those of all images chosen before.
    """
    options = read_storage_options(storage_options, output)
    with reporting("reading the output") as reporter:
        from segbatch.exports import EXPORTS
        from segbatch.operations import row_files
        from segbatch.operations.export import export as export_output
        from segbatch.operations.select import select as select_images

        if to is not None:
            row_files.check_target(to, overwrite=overwrite)
        if export is not None:
            EXPORTS[export[0]]  # before any work
        selection = select_images(
            output,
            strategy=strategy,
            n=number,
            other=other,
            exclude=row_files.read_ids(exclude) if exclude is not None else (),
            per_source=per_source,
            seed=seed,
            storage_options=options,
            reporter=reporter,
        )
        if to is not None:
            row_files.write_file(to, selection.table.to_reader())
        if export is not None:
            exported = export_output(
                output,
                to=export[0],
                target=export[1],
                image_ids=selection.image_ids,
                storage_options=options,
                reporter=reporter,
            )
    if as_json:
        print_json_rows(selection.table.to_reader())
        for note in selection.notes:
            show.print_text(log, f"note: {note}")
        return
    if to is None:
        first = selection.table.slice(0, _MAX_ROWS).select(_SHOWN)
        rows = [list(row.values()) for row in first.to_pylist()]
        console.print(row_table(_SHOWN, rows, console.width))
        if selection.table.num_rows > _MAX_ROWS:
            show.print_text(console, f"(the first {_MAX_ROWS} rows)")
    for note in selection.notes:
        show.print_text(console, f"note: {note}")
    images = counted(selection.table.num_rows, "image")
    show.print_text(console, f"{images} of {selection.candidates:,}{f': {to}' if to is not None else ''}")
    if export is not None:
        print_export(exported)
    elif to is None:
        show.print_text(console, "the list is written by --to FILE.csv or --to FILE.parquet")
