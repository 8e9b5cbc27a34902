"""Label values to classes: by number, by name, ignored, merged, unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segbatch.errors import SpecError
from segbatch.evaluation.class_map import ClassMap

NAMES = ("road", "pavement", "car", "tree")
LABEL = np.array([[0, 1, 2, 3], [7, 255, 70000, -3]])


def translated(ignore: tuple[int, ...] = (255,), mapping: dict[Any, Any] | None = None) -> tuple[list[int], dict]:
    truth, unknown = ClassMap(NAMES, ignore, mapping).truth(LABEL)
    return truth.ravel().tolist(), unknown


def test_values_are_class_ids_without_a_map() -> None:
    assert translated() == ([0, 1, 2, 3, -1, -1, -1, -1], {7: 1, 70000: 1, -3: 1})
    assert translated(ignore=(7, 0)) == ([-1, 1, 2, 3, -1, -1, -1, -1], {255: 1, 70000: 1, -3: 1})


@pytest.mark.parametrize("key", [int, str])
def test_values_are_mapped_by_number_as_yaml_and_json_write_it(key: type) -> None:
    mapping = {key(7): "car", key(0): 3, key(1): "ignore", key(2): None}
    truth, unknown = translated(mapping=mapping)
    assert truth == [3, -1, -1, -1, 2, -1, -1, -1]
    assert unknown == {3: 1, 70000: 1, -3: 1}  # a map that names values names them all


def test_classes_are_merged_in_labels_and_masks() -> None:
    merged = ClassMap(NAMES, (255,), {"pavement": "road"})
    assert merged.truth(LABEL)[0].ravel().tolist()[:4] == [0, 0, 2, 3]
    assert merged.mask(np.array([[0, 1, 2, 3]], np.uint8)).tolist() == [[0, 0, 2, 3]]
    both = ClassMap(NAMES, (255,), {7: "pavement", "pavement": "road"})
    assert both.truth(LABEL)[0].ravel().tolist() == [-1, -1, -1, -1, 0, -1, -1, -1]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({7: "cars"}, "7: 'cars' is not a class of the output; did you mean 'car'"),
        ({7: 4}, "7: 4 is not a class of the output; the output's classes are road, pavement"),
        ({7: True}, "7: True is not a class"),
        ({7: [1]}, r"7: \[1\] is not a class"),
        ({"lorry": "car"}, "lorry: 'lorry' is not a class"),
        ({"car": "ignore"}, "car: 'ignore' is not a class"),
        ({70000: "car"}, "label value 70000 is not within 0 to 65535"),
        ({-1: "car"}, "-1"),
        ({"car": "road", "road": "tree"}, "'car' becomes 'road', which becomes 'tree'; name the last"),
    ],
)
def test_what_cannot_be_mapped(mapping: dict[Any, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        ClassMap(NAMES, (255,), mapping)


def test_masks_of_another_network() -> None:
    with pytest.raises(ValueError, match="holds the id 4, but there are 4 classes"):
        ClassMap(NAMES).mask(np.array([[4]], np.uint8))
    with pytest.raises(SpecError, match="label value -1"):
        ClassMap(NAMES, (-1,))
