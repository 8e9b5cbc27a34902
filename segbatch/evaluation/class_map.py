"""Maps from label values, and from the classes of a network, to the classes that are compared."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segbatch.errors import SpecError
from segbatch.labels import IGNORE_INDEX, UNKNOWN_COLOR, LabelOptions
from segbatch.text import counted

IGNORED = -1
UNKNOWN = -2
_VALUES = 2**16
_IGNORE = "ignore"
# Names of ignored pixels in tables of colors.
_IGNORED_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled", "_ignore_", "__ignore__"})


class UnknownValues(dict[int, tuple[int, str]]):
    """Label values that are neither a class nor ignored -> (pixels, first image that contains them)."""

    def add(self, value: int, pixels: int, image: str) -> None:
        before, first = self.get(value, (0, image))
        self[value] = before + pixels, min(first, image)

    def merge(self, other: UnknownValues) -> None:
        for value, (pixels, image) in other.items():
            self.add(value, pixels, image)

    def lines(self) -> list[str]:
        """Return ``value 217: 192 pixels, first in 0.png`` for each value, the most frequent first."""
        ordered = sorted(self.items(), key=lambda item: (-item[1][0], item[0]))
        return [
            f"{shown_value(value)}: {counted(pixels, 'pixel')}, first in {image}" for value, (pixels, image) in ordered
        ]


class ClassMap:
    """Maps labels and masks to the classes ``names``, which are those of a network.

    Without ``mapping`` a label value is a class id.

    Args:
        ignore: Label values that are ignored, unless ``mapping`` names them.
        mapping: A key that is a number (with ``value_names``: one of them) is a label value, and maps to a class (name
            or id) or to ``ignore``; once there is one, values without a key are unknown. A key that is a class name
            merges that class into another, in masks and labels.
        reduce_zero: Value 0 is ignored, and value v is class v - 1.
        value_names: Entries of a table of colors: value i is the class of the i-th name, or ignored if that is a usual
            name of ignored pixels, such as void.

    Attributes:
        explicit: Whether the mapping states what each value is.

    Raises:
        SpecError: Names the entry that is not valid.
    """

    def __init__(
        self,
        names: Sequence[str],
        ignore: Sequence[int] = (IGNORE_INDEX,),
        mapping: Mapping[Any, Any] | None = None,
        *,
        reduce_zero: bool = False,
        value_names: Sequence[str] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.value_names = None if value_names is None else tuple(value_names)
        values: dict[int, int] = {}
        merged: dict[int, int] = {}
        for key, target in (mapping or {}).items():
            if self.value_names is not None and str(key) in self.value_names:
                values[self.value_names.index(str(key))] = self._class(key, target, ignorable=True)
            elif (isinstance(key, int) and not isinstance(key, bool)) or str(key).isdecimal():
                values[_value(int(key))] = self._class(key, target, ignorable=True)
            else:
                merged[self._class(key, key)] = self._class(key, target)
        for a, b in merged.items():
            if b in merged and a != b:
                raise SpecError(
                    f"map: {names[a]!r} becomes {names[b]!r}, which becomes {names[merged[b]]!r}; name the last of them"
                )
        self._merge = np.arange(len(names))
        self._merge[list(merged)] = list(merged.values())
        self.explicit = bool(values)
        if self.value_names is not None:
            values = {i: values[i] if i in values else self._named(name) for i, name in enumerate(self.value_names)}
        elif reduce_zero:
            if values:
                raise SpecError("reduce_zero_label: --map says what each label value is; give one of the two")
            values = {0: IGNORED, **{c + 1: c for c in range(len(names))}}
        self._lookup = np.full(_VALUES, UNKNOWN, np.int32)
        for value, c in (values or {c: c for c in range(len(names))}).items():
            self._lookup[value] = self._merge[c] if c >= 0 else c
        for value in ignore:
            if not self.explicit or value not in values:
                self._lookup[_value(value)] = IGNORED

    @staticmethod
    def of(names: Sequence[str], options: LabelOptions, value_names: Sequence[str] | None = None) -> ClassMap:
        """Return the map that label options describe."""
        return ClassMap(
            names, options.ignore, options.mapping, reduce_zero=options.reduce_zero, value_names=value_names
        )

    def classes_of(self, values: np.ndarray) -> np.ndarray:
        """Return class ids int32 of label values of any shape, ``IGNORED`` or ``UNKNOWN`` for others."""
        inside = (values >= 0) & (values < _VALUES)
        return np.where(inside, self._lookup[np.where(inside, values, 0)], UNKNOWN).astype(np.int32)

    def truth(self, label: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        """Return the class ids int32 (H, W) of a label, ``IGNORED`` where there is no class.

        Also return the pixels of each unknown value.
        """
        truth = self.classes_of(label)
        unknown = truth == UNKNOWN
        if not unknown.any():
            return truth, {}
        values, pixels = np.unique(label[unknown], return_counts=True)
        return np.where(unknown, IGNORED, truth), dict(zip(values.tolist(), pixels.tolist(), strict=True))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the class ids int64 (H, W) of a mask after merging.

        Raises:
            ValueError: It contains an id that is not a class.
        """
        if mask.size and mask.max() >= len(self.names):
            raise ValueError(f"it holds the id {mask.max()}, but there are {len(self.names)} classes")
        return self._merge[mask]

    def _named(self, name: str) -> int:
        """The class of a name in a table of colors."""
        if name in self.names:
            return self.names.index(name)
        if name.lower() in _IGNORED_NAMES:
            return IGNORED
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise SpecError(
            f"label_colors: {name!r} is not a class; the classes are {', '.join(self.names)}{hint} Say in --map FILE "
            f"which class it is, or that it is ignored, as '{name}: ignore'"
        )

    def _class(self, key: object, given: object, ignorable: bool = False) -> int:
        if ignorable and (given is None or given == _IGNORE) and given not in self.names:
            return IGNORED
        if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(self.names):
            return given
        if str(given) in self.names:
            return self.names.index(str(given))
        near = difflib.get_close_matches(str(given), self.names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the output's classes are {', '.join(self.names)}"
        raise SpecError(f"map: {key}: {given!r} is not a class of the output; {hint}")


def _value(value: int) -> int:
    if not 0 <= value < _VALUES:
        raise SpecError(f"label value {value} is not within 0 to {_VALUES - 1}; values of label images are")
    return value


def shown_value(value: int) -> str:
    """Return ``value 7``, or ``color (12, 3, 4)`` for a color that no table names."""
    if UNKNOWN_COLOR - 2**24 < value <= UNKNOWN_COLOR:
        color = UNKNOWN_COLOR - value
        return f"color ({color >> 16}, {color >> 8 & 255}, {color & 255})"
    return f"value {value}"
