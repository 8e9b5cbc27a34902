"""The command show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from segbatch.cli import tables
from segbatch.cli.arguments import AsJson, MovedInputs, Output, StorageOptions, file_path, read_storage_options
from segbatch.cli.inline import can_draw, print_picture
from segbatch.cli.progress import reporting
from segbatch.cli.terminal import console, log, quoted
from segbatch.text import escape_control_characters, share_text

if TYPE_CHECKING:
    from segbatch.operations.show import Shown

_MAX_CLASSES, _BAR = 40, 20


def show(
    output: Output,
    image_id: Annotated[str, typer.Argument(metavar="IMAGE_ID", help="id of the image, or its end after a /")],
    inputs: MovedInputs = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=file_path, metavar="FILE", help="write the picture to a PNG file"),
    ] = None,
    as_json: AsJson = False,
    storage_options: StorageOptions = None,
) -> None:
    """Show one image with its mask and its classes.

    The picture appears in the terminal. With --to, or without a terminal, it is written to a PNG file.
    """
    options = read_storage_options(storage_options, output)
    with reporting("reading the output"):
        from segbatch.operations.show import show as show_image

        shown = show_image(output, image_id, inputs=inputs or None, storage_options=options)
    path = to
    if path is None and not as_json and not can_draw(console) and shown.panels is not None:
        path = Path(_file_name(shown.row.image_id))
    if path is not None:
        shown.save(path)
    if shown.problem:
        tables.print_text(log, f"note: {escape_control_characters(shown.problem)}")
    if as_json:
        console.print_json(data=_to_json(shown, path), ensure_ascii=True)
        return
    _print(shown, output, is_drawn=path is None)
    if path is not None:
        tables.print_text(console, f"look at {path}")


def _print(shown: Shown, output: str, is_drawn: bool) -> None:
    tables.print_text(console, escape_control_characters(shown.row.image_id))
    if shown.row.error is not None:
        error = shown.row.error
        text = f"error row: {error.stage}/{error.type}: {error.message}"
        tables.print_text(console, escape_control_characters(text))
        tables.print_text(console, f"next: segbatch errors {quoted(output)}")
        return
    tables.print_text(console, shown.summary)
    if is_drawn and (strip := shown.strip()) is not None:
        tables.print_text(console, " | ".join(shown.columns))
        print_picture(console, strip)
    console.print(_class_table(shown))


def _class_table(shown: Shown) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("class", "pixels", "share", "confidence"):
        table.add_column(name, justify="left" if name in ("class", "confidence") else "right")
    for count in shown.row.classes[:_MAX_CLASSES]:
        red, green, blue = shown.labels.colors[count.class_id]
        name = tables.escape(escape_control_characters(shown.labels.names[count.class_id]))
        bar = "■" * round(_BAR * count.confidence)
        table.add_row(
            f"[rgb({red},{green},{blue})]■[/] {name}",
            f"{count.pixels:,}",
            share_text(count.fraction),
            f"{count.confidence:.3f} [dim]{bar}[/]",
        )
    if (hidden := len(shown.row.classes) - _MAX_CLASSES) > 0:
        table.add_row(f"and {hidden} more", "", "", "")
    return table


def _to_json(shown: Shown, path: Path | None) -> dict[str, object]:
    row = shown.row
    names = shown.labels.names
    return {
        "image_id": row.image_id,
        "source": row.source,
        "height": row.height,
        "width": row.width,
        "confidence": row.confidence,
        "classes": [{"name": names[count.class_id], **vars(count)} for count in row.classes],
        "error": None if row.error is None else vars(row.error),
        "problem": shown.problem or None,
        "picture": None if path is None else str(path),
    }


def _file_name(image_id: str) -> str:
    """Return the name of the picture in the current folder: the last part of an id, as far as it is safe."""
    stem = re.sub(r"\.[A-Za-z]{3,4}$", "", image_id.rpartition("/")[2])
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', stem).lstrip('.-')[:100] or 'image'}-shown.png"
