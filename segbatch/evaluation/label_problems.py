"""What makes labels unusable, or probably not what was intended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segbatch.evaluation.class_map import IGNORED, UNKNOWN
from segbatch.evaluation.label_counts import LabelCounts, percent
from segbatch.labels import IGNORE_INDEX
from segbatch.text import counted, escape_control_characters

_MAX_CLASSES_SHOWN = 5
_MAX_ABSENT_SHOWN = 30
_MAX_UNKNOWN_FRACTION = 0.5  # above it the values are not those of the classes
_MUCH_IGNORED_FRACTION = 0.3


def contradictions(counts: LabelCounts, check_palettes: bool) -> list[str]:
    """Return what makes every metric, and all weights that are trained, meaningless."""
    if not counts.inspected:
        first = counts.unreadable[:1]
        return [f"none of {len(counts.unreadable)} can be used, the first: {first[0]}"] if first else []
    by_class, ignored, unknown = counts.by_class, counts.values_of(IGNORED), counts.values_of(UNKNOWN)
    names = counts.classes.names
    shown = ", ".join(escape_control_characters(n) for n in names[:_MAX_CLASSES_SHOWN])
    classes = f"{counted(len(names), 'class')} ({shown}{', …' if len(names) > _MAX_CLASSES_SHOWN else ''})"
    problems = []
    if check_palettes and (other := _renumbered(counts)):
        problems.append(other)
    if counts.fraction(unknown) > _MAX_UNKNOWN_FRACTION:
        problems.append(
            f"{percent(counts.fraction(unknown))} of the pixels of {counted(counts.inspected, 'label')} hold values "
            f"that are none of {classes}: {counts.shown(unknown)}; {_remedy(counts, unknown)}"
        )
    if not by_class.any():
        problems.append(
            f"no pixel of {counted(counts.inspected, 'label')} counts; ignored: {counts.shown(ignored) or 'nothing'}; "
            f"no class: {counts.shown(unknown) or 'nothing'}; give other labels, another --ignore, or --map FILE"
        )
    elif (by_class > 0).sum() == 1 and len(names) > 1 and (ignored or unknown) and not counts.classes.explicit:
        problems.append(_one_class(counts, classes, [*ignored, *unknown]))
    return problems


def _one_class(counts: LabelCounts, classes: str, others: Sequence[int]) -> str:
    name, first = escape_control_characters(counts.classes.names[int(counts.by_class.argmax())]), others[0]
    return (
        f"every pixel that counts is {name!r}, of {classes}; the others do not count: {counts.shown(others)}. "
        f"If {first} is a class, say so in --map FILE, as '{first}: CLASS'; "
        f"if it is ignored, as '{first}: ignore'; with a line for each other value"
    )


def unusable(counts: LabelCounts) -> list[str]:
    """Return which labels cannot be read, or have another size than their image."""
    problems = []
    if counts.unreadable:
        problems.append(f"{len(counts.unreadable):,} cannot be read, the first: {counts.unreadable[0]}")
    if counts.misfits:
        problems.append(
            f"{len(counts.misfits):,} are of another size than their image, the first: {counts.misfits[0]}; a label "
            "has the size of its image as viewers show it"
        )
    return problems


def doubts(counts: LabelCounts) -> list[str]:
    """Return what may be intended, and should be known."""
    problems, ignored, unknown = [], counts.values_of(IGNORED), counts.values_of(UNKNOWN)
    if unknown:
        problems.append(
            f"{percent(counts.fraction(unknown))} of the pixels hold values that are not a class and do not count: "
            f"{counts.shown(unknown)}; {_remedy(counts, unknown)}"
        )
    if counts.fraction(ignored) > _MUCH_IGNORED_FRACTION:
        problems.append(f"{percent(counts.fraction(ignored))} of the pixels are ignored: {counts.shown(ignored)}")
    absent = counts.absent
    if absent:
        shown = ", ".join(escape_control_characters(name) for name in absent[:_MAX_ABSENT_SHOWN])
        omitted = f" and {len(absent) - _MAX_ABSENT_SHOWN} more" if len(absent) > _MAX_ABSENT_SHOWN else ""
        beside = f" (ignored: {counts.shown(ignored)})" if ignored else ""
        problems.append(
            f"{len(absent)} of {len(counts.classes.names)} classes are in no label: {shown}{omitted}{beside}"
        )
    return problems


def _remedy(counts: LabelCounts, unknown: Sequence[int]) -> str:
    if list(unknown) == [len(counts.classes.names)] and not counts.by_class[0]:
        first = escape_control_characters(counts.classes.names[0])
        return f"if values count from 1, --reduce-zero-label makes 0 ignored and 1 {first!r}"
    if min(unknown) < 0:
        return "name these colors in the table of --label-colors"
    return "say in --map FILE which class each value is, or leave it out by --ignore"


def _renumbered(counts: LabelCounts) -> str | None:
    """Why the values are not believed: palettes show each value in the color of another class."""
    labels = counts.labels
    colors = {color: i for i, color in enumerate(labels.colors)}
    if len(colors) < len(labels) or not counts.palette:
        return None
    ignored = tuple(np.frombuffer(labels.palette(), np.uint8).reshape(-1, 3)[IGNORE_INDEX].tolist())
    colors.setdefault(ignored, IGNORED)
    if any(color not in colors for _, color in counts.palette):
        return None
    merged = counts.classes.mask(np.arange(len(labels)))
    wrong = [
        (pixels, value, color)
        for (value, color), pixels in counts.palette.items()
        if (IGNORED if colors[color] == IGNORED else merged[colors[color]]) != counts.meanings[value]
    ]
    if not wrong:
        return None
    _, value, color = max(wrong)
    drawn = (
        "what is ignored" if colors[color] == IGNORED else repr(escape_control_characters(labels.names[colors[color]]))
    )
    meaning = counts.meanings[value]
    meant = {IGNORED: "ignored", UNKNOWN: "no class"}.get(meaning) or repr(counts.classes.names[meaning])
    fraction = sum(p for p, _, _ in wrong) / counts.palette.total()
    return (
        f"the palettes say other classes than the values for {percent(fraction)} of the pixels: value {value}, which "
        f"is {escape_control_characters(meant)}, is drawn in {color}, the color of {drawn}. --label-colors classes "
        "believes the colors, --label-colors indices the values"
    )
