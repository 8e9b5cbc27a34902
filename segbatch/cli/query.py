"""The command query, and tables of any columns."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.table import Table

from segbatch.cli import tables as show
from segbatch.cli.arguments import AsJson, Output, StorageOptions, file_path, read_storage_options
from segbatch.cli.progress import reporting
from segbatch.cli.tables import escape
from segbatch.cli.terminal import console
from segbatch.errors import SpecError
from segbatch.text import counted, escape_control_characters

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_CELL, _GAP = 200, 2
_NUMBER = re.compile(r"(-?[\d,]+(\.\d+)?(e[+-]\d+)?%?|NULL|nan|)")


def query(
    output: Output,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="one statement in DuckDB's SQL (docs/results.md)")],
    other: Annotated[
        str | None,
        typer.Option("--with", metavar="OTHER", help="second output; the names of its views begin with other_"),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV; masks are base64")] = False,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=file_path, metavar="FILE", help="write all rows to a .parquet or .csv file"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file of --to")] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="maximum number of rows of the printed table")] = 40,
    storage_options: StorageOptions = None,
) -> None:
    """Run a SQL query over the rows of an output.

    Views: masks (the columns of the output), classes (image_id, class_id, name, pixels, fraction, confidence) and
    errors (image_id, source, index, stage, type, message).

    Functions: share(classes, 'road'), iou(mask, mask), mask(image_id), class_hash(classes), class_id(name),
    class_name(id). iou decodes both masks: about 2 ms each.
    """
    if as_json + as_csv + (to is not None) > 1:
        raise SpecError("--json, --csv, --to: give one of them")
    options = read_storage_options(storage_options, output)
    with reporting("reading the output") as reporter:
        from segbatch.operations import row_files
        from segbatch.operations.query import Database
        from segbatch.results.dataset import MaskDataset

        if to is not None:
            row_files.check_target(to, overwrite=overwrite)
        first, *second = (MaskDataset.open(uri, storage_options=options) for uri in (output, other) if uri is not None)
        for dataset in (first, *second):
            if not dataset.is_complete:
                reporter.warning(f"{dataset.output.uri}: the run is not finished: these are the committed chunks")
        rows = Database(first, *second).read(sql)
        if as_json or to is not None:
            row_files.refuse_repeated(rows.schema.names)
        if to is not None:
            written = row_files.write_file(to, rows)
        elif not as_json and not as_csv:
            values, is_cut = row_files.first_rows(rows, limit)
    if to is not None:
        show.print_text(console, f"{counted(written, 'row')}: {to}")
    elif as_json:
        print_json_rows(rows)
    elif as_csv:
        print_csv_rows(rows)
    else:
        console.print(row_table(rows.schema.names, values, console.width))
        if is_cut:
            show.print_text(console, f"(the first {limit:,} rows; --limit N shows more, --to FILE.parquet writes all)")
        else:
            show.print_text(console, f"({counted(len(values), 'row')})")


def print_json_rows(rows: pa.RecordBatchReader) -> None:
    """Print rows as one JSON list of objects, one on each line, as they are computed."""
    from segbatch.operations.row_files import plain_rows

    mark = "["
    for row in plain_rows(rows):
        console.write(f"{mark}{json.dumps(dict(zip(rows.schema.names, row, strict=True)))}")
        mark = ",\n"
    console.write("[]\n" if mark == "[" else "]\n")


def print_csv_rows(rows: pa.RecordBatchReader) -> None:
    """Print rows as CSV, as they are computed."""
    from segbatch.operations.row_files import write_csv

    write_csv(console, rows)


def row_table(names: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> Table:
    """Build a table of untrusted values within ``width`` columns of text: numbers to the right, long values cut."""
    texts = [[_safe(name) for name in names], *([_safe(cell(value)) for value in row] for row in rows)]
    widths = _fitted([max(map(cell_len, column)) for column in zip(*texts, strict=True)], width)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, column_width in enumerate(widths):
        is_number = all(_NUMBER.fullmatch(row[i]) for row in texts[1:])
        table.add_column(
            escape(texts[0][i]),
            justify="right" if is_number and rows else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=column_width,
        )
    for row in texts[1:]:
        table.add_row(*map(escape, row))
    return table


def _fitted(natural: Sequence[int], width: int) -> list[int]:
    """Return the widths of columns: the narrow ones keep theirs, the wide ones share what is left equally."""
    left, widths = width - _GAP * (len(natural) - 1), [0] * len(natural)
    for done, i in enumerate(sorted(range(len(natural)), key=lambda i: natural[i])):
        widths[i] = max(1, min(natural[i], left // (len(natural) - done)))
        left -= widths[i]
    return widths


def cell(value: Any) -> str:
    """Return a value as a short text: bytes as their size, floats with six digits, lists and structs as JSON."""
    from segbatch.operations.row_files import plain

    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        return json.dumps(_short(value), ensure_ascii=False)
    return str(plain(value))


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(cell(value))
    return value if value is None or isinstance(value, str | int) else cell(value)


def _safe(text: str) -> str:
    return escape_control_characters(text[:_MAX_CELL])
