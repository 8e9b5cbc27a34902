"""Selected, merged and cleaned classes."""

from __future__ import annotations

import numpy as np
import pytest

from segbatch.errors import SpecError
from segbatch.exports.options import ExportOptions
from segbatch.exports.selection import Selected, Selection
from segbatch.labels import LabelSet
from segbatch.records import ClassCount

VOC = LabelSet.of(("background", "cat", "dog", "car"))
STREET = LabelSet.of(("sky", "road", "tree"))
MASK = np.array([[0, 1, 1, 2], [0, 0, 2, 2], [3, 0, 0, 0]], np.uint8)
COUNTS = tuple(ClassCount(i, n, n / 12, c) for i, n, c in ((0, 6, 0.9), (2, 3, 0.8), (1, 2, 0.5), (3, 1, 0.7)))


def select(labels: LabelSet = VOC, mask: np.ndarray = MASK, **options: object) -> tuple[Selection, Selected]:
    selection = Selection.of(labels, ExportOptions("png", **options))  # type: ignore[arg-type]
    return selection, selection.apply(mask, [c for c in COUNTS if c.class_id < len(labels)])


def test_without_options_nothing_changes() -> None:
    selection, selected = select()
    assert (selection.labels, selection.background, selection.void) == (VOC, 0, 255)
    assert np.array_equal(selected.mask, MASK)
    assert [(c.class_id, c.pixels) for c in selected.classes] == [(c.class_id, c.pixels) for c in COUNTS]
    assert [c.confidence for c in selected.classes] == pytest.approx([c.confidence for c in COUNTS])


def test_unselected_classes_become_background() -> None:
    selection, selected = select(classes=("dog",))
    assert selection.labels.names == ("background", "dog")
    assert selection.labels.colors == (VOC.colors[0], VOC.colors[2])
    assert np.array_equal(selected.mask, (MASK == 2).astype(np.uint8))


def test_classes_are_named_alone_or_with_commas_which_may_be_part_of_a_name() -> None:
    labels = LabelSet.of(("window, windowpane", "sky", "road"))
    assert select(labels, classes=("window, windowpane", "road"))[0].labels.names == ("window, windowpane", "road")
    assert select(labels, classes=("sky,road",))[0].labels.names == ("sky", "road")


def test_without_a_background_unselected_classes_are_ignored() -> None:
    selection, selected = select(STREET, np.minimum(MASK, 2), classes=("tree", "sky"))
    assert (selection.labels.names, selection.background) == (("sky", "tree"), None)
    assert np.array_equal(selected.mask, np.array([0, 255, 1], np.uint8)[np.minimum(MASK, 2)])


def test_classes_are_merged_into_a_new_one_or_ignored() -> None:
    selection, selected = select(class_map={"cat": "pet", "dog": "pet", "car": "ignore"})
    assert selection.labels.names == ("background", "pet")
    assert selection.labels.colors[1] == VOC.colors[1]
    assert np.array_equal(selected.mask, np.array([0, 1, 1, 255], np.uint8)[MASK])
    (pet,) = [c for c in selected.classes if c.class_id == 1]
    assert pet.pixels == 5
    assert pet.confidence == pytest.approx((3 * 0.8 + 2 * 0.5) / 5)


def test_uncertain_classes_are_ignored_pixels() -> None:
    _, selected = select(void_below=0.6)
    assert np.array_equal(selected.mask, np.where(MASK == 1, 255, MASK))
    assert selected.voided == 1


def test_small_areas_become_background_by_class_or_by_component() -> None:
    _, selected = select(min_area=3)
    assert np.array_equal(selected.mask, np.where(np.isin(MASK, (1, 3)), 0, MASK))
    assert selected.small == 2
    apart = np.array([[1, 0, 1, 1]], np.uint8)
    assert select(mask=apart, min_area=2)[1].mask.tolist() == [[1, 0, 1, 1]]
    assert select(mask=apart, min_area=2, instances=True)[1].mask.tolist() == [[0, 0, 1, 1]]


def test_many_classes_have_16_bits_and_another_ignored_value() -> None:
    labels = LabelSet.of([f"class {i}" for i in range(256)])
    selection, selected = select(labels, np.full((2, 2), 255, np.uint16))
    assert (selection.void, selected.mask.dtype) == (65_535, np.uint16)
    assert (selected.mask == 255).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("dig",)}, "--classes: 'dig' is not a class of the export; did you mean 'dog'?"),
        ({"class_map": {"x": "dog"}}, "--class-map: 'x' is not a class of the output"),
        ({"class_map": {"cat": "dog", "dog": "pet"}}, "becomes 'dog', which becomes 'pet'; name the last"),
        ({"classes": ("background",)}, "leave no class but the background"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("?", r"\?")):
        select(**options)
