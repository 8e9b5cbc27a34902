"""The command diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from segbatch.cli import tables as show
from segbatch.cli.arguments import AsJson, StorageOptions, file_path, read_storage_options
from segbatch.cli.progress import reporting
from segbatch.cli.query import row_table
from segbatch.cli.terminal import console, quoted
from segbatch.text import counted

if TYPE_CHECKING:
    from segbatch.operations.diff import Difference

_MAX_CLASSES = 40


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="output of a run: a folder or prefix")],
    b: Annotated[str, typer.Argument(metavar="B", help="output that A is compared with, of the same images")],
    images: Annotated[int, typer.Option(min=0, metavar="N", help="number of images to show that differ most")] = 12,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=file_path, metavar="FILE", help="also write an HTML page with the images"),
    ] = None,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Compare the masks of two outputs.

    Images are joined by id, classes by name. About 4 ms for each image whose masks are not equal.
    """
    options = read_storage_options(storage_options, a)
    with reporting("reading the outputs") as reporter:
        from segbatch.operations.diff import diff as diff_outputs
        from segbatch.operations.diff_page import write_diff_page
        from segbatch.operations.page_file import refuse_foreign

        if to is not None:
            refuse_foreign(to)
        difference = diff_outputs(a, b, images=images, storage_options=options, reporter=reporter)
        if to is not None:
            reporter.phase("writing the page")
            address, size = write_diff_page(difference, (a, b), to, options)
    if as_json:
        console.print_json(data=difference.to_json(), ensure_ascii=True)
        return
    show.print_text(console, f"A: {difference.a}\nB: {difference.b}")
    console.print(class_table(difference))
    if difference.changed:
        console.print(image_table(difference))
    for note in difference.notes:
        show.print_text(console, f"note: {note}")
    show.print_text(
        console,
        f"{counted(difference.images, 'image')} in both, {difference.equal:,} with equal masks; "
        f"{difference.pixel_agreement:.2%} of the pixels agree, mean IoU {difference.mean_iou:.3f}",
    )
    if to is not None:
        show.print_text(console, f"page: {quoted(address)} ({size / 1e6:.1f} MB); open it in a browser")
    else:
        show.print_text(console, f"next: segbatch diff {quoted(a)} {quoted(b)} --to FILE.html shows the images")


def class_table(difference: Difference) -> Table:
    """Build the table of classes, lowest IoU first."""
    lines = difference.lines()
    rows = [[x.name, f"{x.iou:.3f}", f"{x.pixels_a:,}", f"{x.pixels_b:,}", x.confused] for x in lines[:_MAX_CLASSES]]
    if len(lines) > _MAX_CLASSES:
        rows.append([f"and {len(lines) - _MAX_CLASSES} more (--json has all)", "", "", "", ""])
    return row_table(("class", "IoU A and B", "pixels in A", "pixels in B", "otherwise in B"), rows, console.width)


def image_table(difference: Difference) -> Table:
    """Build the table of the images that differ most."""
    rows = []
    for image in difference.changed:
        changes = ", ".join(f"{a} -> {b}" for a, b, _ in image.changes)
        rows.append([image.image_id, f"{image.changed:.1%}", f"{image.mean_iou:.3f}", changes])
    return row_table(("image", "changed", "mean IoU", "largest changes, A -> B"), rows, console.width)
