"""A survey of labels before they are used: their values, and what cannot be intended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segbatch.errors import SpecError
from segbatch.evaluation.class_map import IGNORED, UNKNOWN, ClassMap, shown_value
from segbatch.evaluation.label_counts import InspectedLabel, LabelCounts, percent
from segbatch.evaluation.label_problems import contradictions, doubts, unusable
from segbatch.labels import LabelSet
from segbatch.text import escape_control_characters

MAX_LABELS = 1000  # inspected, evenly spaced among all
_MAX_CLASSES_SHOWN = 30
_MAX_IGNORED_SHOWN = 5
_MAX_VALUES = 2**10
_THREADS = 8


@dataclass(frozen=True)
class ValueCount:
    """A label value.

    Attributes:
        meaning: Its class, ``ignored`` or ``unknown``.
        fraction: Of all inspected pixels.
        labels: Number of labels that contain it.
    """

    value: int
    meaning: str
    fraction: float
    labels: int


@dataclass(frozen=True)
class LabelSurvey:
    """What ``inspected`` of ``labels`` labels contain. Fractions are of all their pixels.

    Attributes:
        absent: Classes that no inspected label contains.
        unknown: Fraction of the pixels whose value is neither a class nor ignored.
        warnings: What is probably not intended.
        notes: Images and labels without a partner.
    """

    labels: int
    inspected: int
    class_fractions: dict[str, float]
    absent: tuple[str, ...]
    ignored: float
    unknown: float
    values: tuple[ValueCount, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the survey as messages."""
        inspected = "all" if self.inspected == self.labels else f"{self.inspected:,} of them"
        fractions = sorted(self.class_fractions.items(), key=lambda item: -item[1])
        present = [f"{escape_control_characters(name)} {percent(fraction)}" for name, fraction in fractions if fraction]
        omitted = f" and {len(present) - _MAX_CLASSES_SHOWN} more" if len(present) > _MAX_CLASSES_SHOWN else ""
        values = [shown_value(v.value) for v in self.values if v.meaning == "ignored"]
        ignored = f"; ignored {percent(self.ignored)} ({', '.join(values[:_MAX_IGNORED_SHOWN])})" if values else ""
        shown = ", ".join(present[:_MAX_CLASSES_SHOWN]) or "no class"
        return [
            *(f"labels: {note}" for note in self.notes),
            f"labels: {self.labels:,}, {inspected} inspected: {shown}{omitted}{ignored}",
            *(f"warning: labels: {warning}" for warning in self.warnings),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def survey(
    count: int,
    inspect: Callable[[int], InspectedLabel],
    classes: ClassMap,
    labels: LabelSet,
    *,
    strict: bool,
    check_palettes: bool = True,
    notes: Sequence[str] = (),
) -> LabelSurvey:
    """Inspect up to ``MAX_LABELS`` of ``count`` labels, evenly spaced, in several threads.

    Args:
        inspect: Reads the label of a number below ``count``, or raises ``SpecError``.
        labels: The classes and their colors.
        strict: Refuse labels that cannot be read or have another size than their image; else they are warnings.
        check_palettes: Refuse palettes that show the classes' colors under other values.
        notes: Passed on to the result.

    Raises:
        SpecError: No pixel counts, most pixels have values that are not a class, or only one class is left while other
            pixels are ignored and no map says that this is intended.
    """
    chosen = range(count) if count <= MAX_LABELS else np.linspace(0, count - 1, MAX_LABELS).astype(int).tolist()
    counts = LabelCounts(classes, labels)

    def try_to_inspect(index: int) -> tuple[InspectedLabel | None, SpecError | None]:
        try:
            return inspect(index), None
        except SpecError as e:
            return None, e

    with ThreadPoolExecutor(_THREADS) as pool:
        for label, error in pool.map(try_to_inspect, chosen):
            if label is not None:
                counts.add(label)
            elif error is not None:
                counts.add_unreadable(error)
    errors = [*contradictions(counts, check_palettes), *(unusable(counts) if strict else ())]
    if errors:
        raise SpecError(f"labels: {errors[0]}")
    return _result(counts, count, (*(() if strict else unusable(counts)), *doubts(counts)), tuple(notes))


def _result(counts: LabelCounts, count: int, warnings: tuple[str, ...], notes: tuple[str, ...]) -> LabelSurvey:
    names, total = counts.classes.names, max(1, counts.pixels.total())
    kinds = {IGNORED: "ignored", UNKNOWN: "unknown"}
    return LabelSurvey(
        labels=count,
        inspected=counts.inspected,
        class_fractions={n: int(p) / total for n, p in zip(names, counts.by_class, strict=True)},
        absent=tuple(counts.absent),
        ignored=counts.fraction(counts.values_of(IGNORED)),
        unknown=counts.fraction(counts.values_of(UNKNOWN)),
        values=tuple(
            ValueCount(v, kinds.get(c) or names[c], counts.fraction([v]), counts.occurrences[v])
            for v, c in list(counts.meanings.items())[:_MAX_VALUES]
        ),
        warnings=warnings,
        notes=notes,
    )
