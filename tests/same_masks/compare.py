"""Two outputs of one case, row by row and column by column, and the differences that a file allows."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

Value = Any
Rows = dict[str, dict[str, Value]]


@dataclass(frozen=True)
class Difference:
    """One value that differs. ``size`` is in pixels of masks, else the largest difference of numbers, else infinite."""

    case: str
    image: str
    column: str
    what: str
    size: float = math.inf


@dataclass
class Allowance:
    """Differences that are meant: of cases and columns by pattern, of a size of at most so much."""

    case: str
    column: str
    reason: str
    at_most: float = math.inf
    used: int = field(default=0, init=False)

    def allows(self, difference: Difference) -> bool:
        fits = fnmatchcase(difference.case, self.case) and fnmatchcase(difference.column, self.column)
        return fits and difference.size <= self.at_most


def read_allowances(path: Path) -> list[Allowance]:
    """The allowances of a YAML file: a list of mappings with ``case``, ``column``, ``reason`` and maybe ``at_most``."""
    return [Allowance(**entry) for entry in yaml.safe_load(path.read_text()) or []]


def not_allowed(differences: Iterable[Difference], allowances: Sequence[Allowance]) -> list[Difference]:
    """The differences that no allowance covers; each that one covers is counted there."""
    left = []
    for difference in differences:
        allowing = [a for a in allowances if a.allows(difference)]
        for allowance in allowing:
            allowance.used += 1
        if not allowing:
            left.append(difference)
    return left


def compare(case: str, base: Path, head: Path) -> Iterator[Difference]:
    """Every difference between two outputs of a case: of its rows, and of its statistics by class."""
    errors = [Path(f"{side}.error") for side in (base, head)]
    said = [e.read_text() if e.exists() else "done" for e in errors]
    if said != ["done", "done"]:
        yield Difference(case, "-", "run", f"base: {said[0][:300]}; here: {said[1][:300]}")
        return
    tables = [pq.read_table(side / "masks") for side in (base, head)]
    yield from compare_tables(case, *tables, key="image_id")
    tables = [pq.read_table(side / "stats" / "classes.parquet") for side in (base, head)]
    yield from compare_tables(case, *tables, key="class_id", prefix="statistics.")


def compare_tables(case: str, base: pa.Table, head: pa.Table, key: str, prefix: str = "") -> Iterator[Difference]:
    """Columns of one table alone, rows of one table alone, then each value of what both have."""
    mine, yours = list(_columns(head.schema)), list(_columns(base.schema))
    for name in sorted(set(mine) ^ set(yours)):
        yield Difference(case, "-", prefix + name, f"a column {'here' if name in mine else 'of the base'} alone")
    both = [name for name in mine if name in yours]
    before, after = _rows(base, key), _rows(head, key)
    for rows, table, side in ((before, base, "the base"), (after, head, "this checkout")):
        if len(rows) != table.num_rows:
            yield Difference(case, "-", f"{prefix}row", f"{table.num_rows - len(rows)} rows twice in {side}")
    for image in sorted(before.keys() ^ after.keys()):
        yield Difference(case, image, f"{prefix}row", "here alone" if image in after else "in the base alone")
    for image in sorted(before.keys() & after.keys()):
        for name in both:
            old, new = before[image][name], after[image][name]
            if old is not new and (what := _compare_values(name, old, new)):
                yield Difference(case, image, prefix + name, *what)


def _columns(schema: pa.Schema) -> Iterator[str]:
    """Names of columns; of structs, and lists of them, those of the fields; of masks three."""
    for column in schema:
        kind = column.type.value_type if pa.types.is_list(column.type) else column.type
        if column.name == "mask":
            yield from ("mask pixels", "mask palette", "mask bytes")
        elif pa.types.is_struct(kind):
            yield from (f"{column.name}.{kind.field(i).name}" for i in range(kind.num_fields))
        else:
            yield column.name


def _rows(table: pa.Table, key: str) -> Rows:
    names = list(_columns(table.schema))
    return {str(row[key]): {name: _value(row, name) for name in names} for row in table.to_pylist()}


def _value(row: Mapping[str, Value], name: str) -> Value:
    if name.startswith("mask "):
        data = row["mask"]
        return None if data is None else _MASK[name](data)
    column, _, inner = name.partition(".")
    value = row[column]
    if not inner or value is None:
        return value
    return [item[inner] for item in value] if isinstance(value, list) else value[inner]


def _palette(data: bytes) -> list[int] | None:
    with Image.open(io.BytesIO(data)) as image:
        return image.getpalette()


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


_MASK: dict[str, Callable[[bytes], Value]] = {"mask pixels": _pixels, "mask palette": _palette, "mask bytes": bytes}


def _compare_values(name: str, old: Value, new: Value) -> tuple[str, float] | None:
    """How two values differ, and by how much; None if they do not."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if old.shape != new.shape:
            return f"{old.shape} in the base, {new.shape} here", math.inf
        count = int((old != new).sum())
        return (f"{count} of {old.size} pixels differ", count) if count else None
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return "a mask on one side alone", math.inf
    if name == "mask palette" and old and new:
        entries = min(len(old), len(new))  # ids without a class need no entry
        old, new = old[:entries], new[:entries]
    if old == new:
        return None
    if name in ("mask bytes", "mask palette"):
        return f"{len(old or [])} values in the base, {len(new or [])} here, not the same", math.inf
    numbers = [np.atleast_1d(np.asarray(v)) for v in (old, new)]
    if numbers[0].shape == numbers[1].shape and all(np.issubdtype(v.dtype, np.number) for v in numbers):
        largest = float(np.abs(numbers[0] - numbers[1]).max())
        if math.isfinite(largest):
            return f"{_short(old)} in the base, {_short(new)} here; differs by at most {largest:.3g}", largest
        if np.array_equal(*numbers, equal_nan=True):
            return None
    return f"{_short(old)} in the base, {_short(new)} here", math.inf


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
