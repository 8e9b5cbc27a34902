"""Conditions on the rows of an output."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.text import escape_control_characters


@dataclass(frozen=True)
class Filter:
    """Rows that satisfy every condition given; see ``MaskRows.select``.

    Attributes:
        classes: Ids; the mask has at least one of these classes.
        min_confidence: The least confidence.
        max_confidence: The largest.
        errors: Whether error rows or the others are selected.
        where: An expression over the columns but ``mask``.
    """

    classes: frozenset[int] | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    errors: bool | None = None
    where: pc.Expression | None = None

    def columns(self, known: list[str]) -> list[str]:
        """Return the columns that are read to decide, of those that are ``known``."""
        if self.where is not None:
            return [name for name in known if name != "mask"]
        used = {
            "classes": self.classes is not None,
            "confidence": self.min_confidence is not None or self.max_confidence is not None,
            "error": self.errors is not None,
        }
        return [name for name, is_used in used.items() if is_used] or ["error"]

    def selects(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return for each row whether it satisfies the conditions, bool (N,)."""
        chosen = np.ones(batch.num_rows, bool)
        if self.errors is not None:
            chosen &= _bool(batch["error"].is_valid()) == self.errors
        if self.min_confidence is not None:
            chosen &= _bool(pc.greater_equal(batch["confidence"], self.min_confidence))
        if self.max_confidence is not None:
            chosen &= _bool(pc.less_equal(batch["confidence"], self.max_confidence))
        if self.classes is not None:
            chosen &= _holds_any(batch["classes"], self.classes)
        if self.where is not None:
            chosen &= _satisfies(batch, self.where)
        return chosen


def class_ids(classes: Iterable[int | str], labels: LabelSet) -> list[int]:
    """Return the ids of classes that are given by name or id. Raises ``SpecError`` for an unknown one."""
    given = [classes] if isinstance(classes, (int, str)) else classes
    return [_class_id(one, labels) for one in given]


def _class_id(given: int | str, labels: LabelSet) -> int:
    if isinstance(given, str) and given in labels.names:
        return labels.names.index(given)
    if not isinstance(given, str) and 0 <= given < len(labels):
        return int(given)
    near = difflib.get_close_matches(str(given), labels.names, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]!r}?" if near else f"it has the ids 0 to {len(labels) - 1}: {_shown(labels)}"
    raise SpecError(f"classes: got {given!r}, which is not a class of the output; {remedy}")


def _shown(labels: LabelSet) -> str:
    names = [escape_control_characters(name) for name in labels.names[:30]]
    return ", ".join(names) + (", …" if len(labels) > len(names) else "")


def _bool(values: pa.BooleanArray) -> np.ndarray:
    return values.fill_null(False).to_numpy(zero_copy_only=False)


def _satisfies(batch: pa.RecordBatch, where: pc.Expression) -> np.ndarray:
    satisfied = np.zeros(batch.num_rows, bool)
    try:
        numbered = batch.append_column("", pa.array(np.arange(batch.num_rows)))
        satisfied[numbered.filter(where)[""].to_numpy()] = True
    except (pa.ArrowException, TypeError) as e:
        reason = " ".join(str(e).split())
        raise SpecError(f"where: {where}: {reason}; the columns are {', '.join(batch.schema.names)}") from None
    return satisfied


def _holds_any(lists: pa.ListArray, ids: frozenset[int]) -> np.ndarray:
    parents = pc.list_parent_indices(lists)
    found = pc.is_in(pc.struct_field(pc.list_flatten(lists), "class_id"), pa.array(sorted(ids), pa.int16()))
    holds = np.zeros(len(lists), bool)
    holds[parents.filter(found).to_numpy()] = True
    return holds
