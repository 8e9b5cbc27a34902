"""Rows of a query or a selection as values that JSON and CSV have, and as a Parquet or CSV file."""

from __future__ import annotations

import base64
import csv
import decimal
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import PlatformError, SpecError


class Writable(Protocol):
    """What text is written to."""

    def write(self, text: str, /) -> object: ...


SUFFIXES = (".parquet", ".csv")


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise ``SpecError`` unless rows can be written to this file."""
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"{path}: the name of the file must end in {' or '.join(SUFFIXES)}")
    if path.exists() and not overwrite:
        raise SpecError(f"{path} exists; choose another --to, or --overwrite to replace it")


def refuse_repeated(names: Sequence[str]) -> None:
    """Raise ``SpecError`` if several columns have one name, which JSON objects and Parquet files cannot hold."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SpecError(f"sql: several columns are called {repeated[0]!r}; name each with AS")


def write_file(path: Path, rows: pa.RecordBatchReader) -> int:
    """Write rows as Parquet or CSV, as the suffix names, batch by batch; the file appears whole.

    Returns:
        The number of rows.

    Raises:
        PlatformError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            if path.suffix.lower() == ".csv":
                with open(temporary, "w", newline="") as stream:
                    count = write_csv(stream, rows)
            else:
                count = 0
                with pq.ParquetWriter(temporary, rows.schema, compression="zstd") as writer:
                    for batch in rows:
                        writer.write_batch(batch)
                        count += batch.num_rows
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        raise PlatformError(f"{path}: cannot be written: {e.strerror or e}") from e
    return count


def write_csv(stream: Writable, rows: pa.RecordBatchReader) -> int:
    """Write rows with a header; bytes are base64, lists and structs JSON. Return their number."""
    writer, count = csv.writer(stream, lineterminator="\n"), 0
    writer.writerow(rows.schema.names)
    for row in plain_rows(rows):
        writer.writerow([json.dumps(v) if isinstance(v, list | dict) else v for v in row])
        count += 1
    return count


def plain_rows(rows: pa.RecordBatchReader) -> Iterator[list[Any]]:
    """Yield the values of each row as JSON has them, see ``plain``."""
    for batch in rows:
        columns = [column.to_pylist() for column in batch.columns]
        yield from ([plain(value) for value in row] for row in zip(*columns, strict=True))


def plain(value: Any) -> Any:
    """Return a value of Arrow as JSON has it: bytes in base64, times in ISO 8601, NaN as None."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def first_rows(rows: pa.RecordBatchReader, limit: int) -> tuple[list[list[Any]], bool]:
    """Return up to ``limit`` rows as Arrow has their values, and whether there are more. Reads no further."""
    values = (list(row) for batch in rows for row in zip(*(c.to_pylist() for c in batch.columns), strict=True))
    taken = list(itertools.islice(values, limit + 1))
    return taken[:limit], len(taken) > limit


def read_ids(path: Path) -> list[str]:
    """Read the column ``image_id`` of a Parquet or CSV file, or the lines of any other file.

    Raises:
        SpecError: The file cannot be read, or has no such column.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return [str(value) for value in pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()]
        if path.suffix.lower() != ".csv":
            return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        with open(path, newline="") as stream:
            rows = csv.DictReader(stream)
            if "image_id" not in (rows.fieldnames or ()):
                raise ValueError("it has no column image_id")
            return [row["image_id"] for row in rows]
    except (OSError, ValueError, pa.ArrowException, csv.Error) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else " ".join(str(e).split())
        raise SpecError(f"{path}: cannot be read as a list of images: {reason}") from e
