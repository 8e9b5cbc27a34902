"""Surveys of labels: what they report, and which labels they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segbatch.errors import SpecError
from segbatch.evaluation.class_map import ClassMap
from segbatch.evaluation.label_counts import InspectedLabel
from segbatch.evaluation.survey import MAX_LABELS, LabelSurvey, survey
from segbatch.labels import LabelOptions, LabelSet

TWO = LabelSet.of(["background", "object"])
THREE = LabelSet.of(["road", "car", "sky"])


def label(*rows: tuple[int, int], palette: Any = None, name: str = "a.png") -> InspectedLabel:
    """A label of ``pixels`` pixels of ``value`` for each (value, pixels)."""
    values = np.concatenate([np.full(pixels, value) for value, pixels in rows]).reshape(1, -1)
    return InspectedLabel(name, values, None if palette is None else np.array(palette, np.uint8))


def surveyed(
    *inspected: InspectedLabel | SpecError, names: LabelSet = TWO, strict: bool = True, **options: Any
) -> LabelSurvey:
    def inspect(index: int) -> InspectedLabel:
        found = inspected[index]
        if isinstance(found, SpecError):
            raise found
        return found

    check = options.pop("check_palettes", True)
    classes = ClassMap.of(names.names, LabelOptions(**options))
    return survey(len(inspected), inspect, classes, names, strict=strict, check_palettes=check)


def test_good_labels_are_told_and_nothing_is_warned_of() -> None:
    found = surveyed(label((0, 70), (1, 25), (255, 5)), label((0, 90), (1, 10)))
    assert found.class_fractions == {"background": 0.8, "object": 0.175}
    assert (found.ignored, found.unknown, found.absent, found.warnings) == (0.025, 0, (), ())
    assert [(v.value, v.meaning, v.labels) for v in found.values] == [
        (0, "background", 2),
        (1, "object", 2),
        (255, "ignored", 1),
    ]
    assert found.lines() == ["labels: 2, all inspected: background 80.0 %, object 17.5 %; ignored 2.5 % (value 255)"]


@pytest.mark.parametrize(
    ("inspected", "names", "says"),
    [
        (label((0, 80), (255, 20)), TWO, r"'background', of 2 classes .*value 255: 20.0 %. If 255 is a class, say so"),
        (label((0, 80), (7, 20)), TWO, "every pixel that counts is 'background'.*value 7: 20.0 %"),
        (label((255, 100)), TWO, "no pixel of 1 label counts; ignored: value 255: 100.0 %; no class: nothing"),
        (
            label((0, 30), (7, 40), (26, 30)),
            THREE,
            "70.0 % of the pixels of 1 label hold .* value 7: 40.0 %, value 26",
        ),
        (label((1, 30), (2, 10), (3, 60)), THREE, "60.0 %.* --reduce-zero-label makes 0 ignored and 1 'road'"),
    ],
)
def test_labels_that_cannot_be_meant_so(inspected: InspectedLabel, names: LabelSet, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        surveyed(inspected, names=names)


def test_a_map_says_what_is_meant() -> None:
    binary = label((0, 80), (255, 20))
    assert surveyed(binary, mapping={0: "background", 255: "object"}).warnings == ()
    found = surveyed(binary, mapping={0: "background", 255: "ignore"})
    assert found.warnings == ("1 of 2 classes are in no label: object (ignored: value 255: 20.0 %)",)
    assert surveyed(label((0, 10), (1, 60), (2, 30)), reduce_zero=True).ignored == 0.1


def test_what_may_be_meant_is_warned_of_with_numbers() -> None:
    found = surveyed(label((0, 50), (1, 8), (9, 2), (255, 40)), names=THREE)
    assert found.warnings == (
        "2.0 % of the pixels hold values that are not a class and do not count: value 9: 2.0 %; say in --map FILE "
        "which class each value is, or leave it out by --ignore",
        "40.0 % of the pixels are ignored: value 255: 40.0 %",
        "1 of 3 classes are in no label: sky (ignored: value 255: 40.0 %)",
    )
    assert found.lines()[-1].startswith("warning: labels: 1 of 3 classes are in no label")
    assert surveyed(label((0, 60), (1, 40)), names=THREE, mapping={"sky": "road"}).absent == ()


BLACK, MAROON, VOID_COLOR = (0, 0, 0), (128, 0, 0), (224, 224, 192)


@pytest.mark.parametrize(
    "inspected",
    [
        [label((0, 20), (1, 80), palette=[MAROON, BLACK])],
        [label((0, 80), (1, 20), palette=[BLACK, MAROON]), label((0, 20), (1, 80), palette=[MAROON, BLACK])],
        [label((0, 80), (1, 15), (2, 5), palette=[BLACK, VOID_COLOR, MAROON])],
    ],
)
def test_palettes_that_show_other_classes_are_refused(inspected: list[InspectedLabel]) -> None:
    with pytest.raises(SpecError, match=r"palettes say other classes .* --label-colors classes believes the colors"):
        surveyed(*inspected)
    assert surveyed(*inspected, check_palettes=False).inspected == len(inspected)


@pytest.mark.parametrize(
    "palette",
    [
        [BLACK, MAROON],
        [(10, 200, 30), (250, 10, 90)],
        [(0, 0, 0), (1, 1, 1)],
        [(255, 255, 255), (0, 0, 0)],
    ],
)
def test_palettes_of_other_colors_than_the_classes_say_nothing(palette: list[tuple[int, int, int]]) -> None:
    assert surveyed(label((0, 80), (1, 20), palette=palette)).warnings == ()


def test_labels_that_cannot_be_used_are_refused_where_they_would_stop_the_work() -> None:
    good, small = label((0, 80), (1, 20)), InspectedLabel("s.png", np.array([[0, 1]]), None, (2, 1))
    broken = SpecError("labels: b.png cannot be read: it breaks off")
    for bad, says in (
        (small, "1 are of another size .* s.png: label 1x2, image 2x1"),
        (broken, "1 cannot be read.* b.png"),
    ):
        with pytest.raises(SpecError, match=says):
            surveyed(good, bad)
        assert len(surveyed(good, bad, strict=False).warnings) == 1
    with pytest.raises(SpecError, match=r"none of 1 can be used, the first: b.png cannot be read"):
        surveyed(broken, strict=False)


def test_of_many_labels_some_are_inspected() -> None:
    one, seen = label((0, 80), (1, 20)), set()

    def inspect(index: int) -> InspectedLabel:
        seen.add(index)
        return one

    count = 10 * MAX_LABELS
    found = survey(count, inspect, ClassMap(TWO.names), TWO, strict=True)
    assert (found.labels, found.inspected, len(seen), max(seen)) == (count, MAX_LABELS, MAX_LABELS, count - 1)
    assert found.lines()[0].startswith("labels: 10,000, 1,000 of them inspected")
