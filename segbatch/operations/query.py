"""``segbatch query``: SQL over the rows of an output, or of two outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from segbatch.config.base import refuse_blank
from segbatch.errors import OutputError, SegbatchError, SpecError
from segbatch.evaluation.agreement import CommonClasses, mean_iou
from segbatch.registry import suggest
from segbatch.results.dataset import MaskDataset

_OTHER = "other_"  # before the names of the views and helpers of the second output
_UNKNOWN_CLASS = re.compile(r"unknown class .*", re.DOTALL)
_UNKNOWN_TABLE = "Table with name"
# How DuckDB 1.3 and 2.0 report that Arrow could not read the next batch of a dataset.
_UNREADABLE = re.compile("next failed|reading the stream registered")
_VIEWS = """
CREATE TEMP VIEW {p}masks AS SELECT * EXCLUDE (error) FROM {p}rows WHERE error IS NULL;
CREATE TEMP VIEW {p}errors AS
    SELECT image_id, source, index, error.stage AS stage, error.type AS type, error.message AS message
    FROM {p}rows WHERE error IS NOT NULL;
CREATE TEMP MACRO {p}class_name(id) AS {names}[id + 1];
CREATE TEMP VIEW {p}classes AS
    SELECT image_id, c.class_id, {p}class_name(c.class_id) AS name, c.pixels, c.fraction, c.confidence
    FROM (SELECT image_id, unnest(classes) AS c FROM {p}rows);
CREATE TEMP MACRO {p}share(classes, name) AS
    coalesce(list_sum([c.fraction for c in classes if c.class_id = {p}class_id(name)]), 0.0);
CREATE TEMP MACRO {p}mask(id) AS (SELECT m.mask FROM {p}rows m WHERE m.image_id = id);
"""
_CLASS_HASH = """
CREATE TEMP MACRO class_hash(classes) AS
    md5(list_sort([(c.class_id, round(c.fraction * 20)) for c in classes if c.fraction >= 0.025])::VARCHAR)
"""
_NO_IOU = """
CREATE TEMP MACRO iou(a, b) AS
    error('iou compares class ids, and the two outputs have different classes; segbatch diff matches them by name')
"""


class Database:
    """The rows of one output, or of two, as views of an in-memory DuckDB database.

    Columns and filters of a query are pushed down to the result files, on any store. SQL has no access to files, to the
    network, to variables of Python or to the configuration of DuckDB.

    Views: ``masks`` (the columns of the result files), ``classes`` (one row for each class in each mask: image_id,
    class_id, name, pixels, fraction, confidence) and ``errors`` (image_id, source, index, stage, type, message).

    Functions: ``share(classes, 'road')``, the fraction of the image; ``class_id(name)``, ``class_name(id)``;
    ``iou(mask, mask)``, the mean IoU of two masks, which decodes both; ``mask(image_id)``, the mask of an image;
    ``class_hash(classes)``, equal for images of the same classes in about the same fractions (steps of 5 %).

    Those of a second output begin with ``other_``.
    """

    def __init__(self, dataset: MaskDataset, other: MaskDataset | None = None) -> None:
        self._datasets = [dataset] if other is None else [dataset, other]
        self._connection = duckdb.connect(
            config={"enable_external_access": "false", "python_enable_replacements": "false"}
        )
        for prefix, each in zip(("", _OTHER), self._datasets, strict=False):
            self._connection.register(f"{prefix}rows", each.to_arrow_dataset())
            self._define(f"{prefix}class_id", _ids_of(each.classes.names), ["VARCHAR"], "INTEGER")
            self._connection.execute(_VIEWS.format(p=prefix, names=_list_of(each.classes.names)))
        self._connection.execute(_CLASS_HASH)
        if other is None or CommonClasses(dataset.classes, other.classes).are_equal:
            self._define("iou", _iou, ["BLOB", "BLOB"], "DOUBLE")
        else:
            self._connection.execute(_NO_IOU)
        self._connection.execute("SET lock_configuration = true")

    def _define(self, name: str, function: Callable[..., pa.Array], takes: list[str], returns: str) -> None:
        self._connection.create_function(name, function, takes, returns, type="arrow")  # type: ignore[call-overload]

    def read(self, sql: str) -> pa.RecordBatchReader:
        """Return the result of one statement, computed as it is read.

        Raises:
            SpecError: It is not one statement that returns rows, or it is not valid; also while the result is read.
            OutputError: A result file cannot be read, while the result is read.
        """
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].expected_result_type != [duckdb.ExpectedResultType.QUERY_RESULT]:
                raise SpecError("sql: give one statement that returns rows, such as SELECT count(*) FROM masks")
            reader = pa.RecordBatchReader.from_stream(self._connection.sql(sql))
        except duckdb.Error as e:
            raise self._translated(e) from e
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _batches(self, reader: pa.RecordBatchReader) -> Any:
        try:
            yield from reader
        except (duckdb.Error, pa.ArrowException, OSError) as e:
            raise self._translated(e) from e

    def _translated(self, error: Exception) -> SegbatchError:
        text = str(error)
        if _UNREADABLE.search(text):
            where = " or ".join(each.output.uri for each in self._datasets)
            return OutputError(
                f"{where}: a result file cannot be read: {_one_line(text)}; try again: a compaction or another run may "
                "have replaced it since it was listed"
            )
        if unknown := _UNKNOWN_CLASS.search(text):
            return SpecError(f"sql: {_one_line(unknown[0])}")
        hint = ""
        if _UNKNOWN_TABLE in text:
            text, hint = text.partition("\n")[0], " The views are masks, classes and errors"
        return SpecError(f"sql: {_one_line(text)}{hint}")


def query(
    output: str, sql: str, *, other: str | None = None, storage_options: dict[str, Any] | None = None
) -> pa.Table:
    """Return the result of a SQL query over the rows of an output, see ``Database``.

    Args:
        output: The folder or prefix that was ``--output`` of a run, finished or not.
        sql: One statement in DuckDB's SQL.
        other: Another output, as ``other_masks``, ``other_classes`` and ``other_errors``.
        storage_options: Passed to fsspec.

    Raises:
        PlanError: There is no output of segbatch.
        SpecError: The statement is not valid.
        OutputError: A result file cannot be read.
    """
    refuse_blank(output=output, sql=sql, other=other)
    first, *second = (
        MaskDataset.open(uri, storage_options=storage_options) for uri in (output, other) if uri is not None
    )
    return Database(first, *second).read(sql).read_all()


def _ids_of(names: Sequence[str]) -> Callable[[pa.Array], pa.Array]:
    """Return a function of SQL: ids of classes by name. DuckDB takes it for a constant, unlike ``error()``."""
    ids = {name: i for i, name in enumerate(names)}

    def class_id(given: pa.Array) -> pa.Array:
        for name in given.unique().to_pylist():
            if name is not None and name not in ids:
                raise ValueError(f"unknown class {name!r}{suggest(name, ids, 'segbatch stats OUTPUT --json')}")
        return pa.array([ids.get(name) for name in given.to_pylist()], pa.int32())

    return class_id


def _iou(a: pa.Array, b: pa.Array) -> pa.Array:
    try:
        pairs = zip(a.to_pylist(), b.to_pylist(), strict=True)
        return pa.array([None if x is None or y is None else mean_iou(x, y) for x, y in pairs], pa.float64())
    except OSError as e:  # Pillow's error for bytes that are not an image
        raise ValueError(f"iou: not a mask: {e}") from None


def _list_of(names: Sequence[str]) -> str:
    """Return a list of strings as SQL."""
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"[{quoted}]"


def _one_line(text: str) -> str:
    """Return DuckDB's message without the quoted statement and without the traceback of a function."""
    return " ".join(re.split(r"\n(?:LINE |\nAt:)", text, maxsplit=1)[0].split())
