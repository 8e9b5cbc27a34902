"""Pixel counts of inspected labels, by label value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from segbatch.errors import SpecError
from segbatch.evaluation.class_map import ClassMap, shown_value
from segbatch.labels import LabelSet

_MAX_VALUES_SHOWN = 5


@dataclass(frozen=True)
class InspectedLabel:
    """A label that was read.

    Attributes:
        values: Label values int64 (H, W).
        palette: Colors uint8 (N, 3) of a palette image, else None.
        image_size: (height, width) of its image, if known.
    """

    name: str
    values: np.ndarray
    palette: np.ndarray | None = None
    image_size: tuple[int, int] | None = None


@dataclass
class LabelCounts:
    """Sums over inspected labels; ``add`` all of them before anything else is asked.

    Attributes:
        labels: The classes and their colors.
        inspected: Number of labels that could be read.
        pixels: Pixels of each label value.
        occurrences: Number of labels that contain each value.
        palette: Pixels of each pair of a value and its color in a palette.
        misfits: Labels of another size than their image, for messages.
        unreadable: Why labels could not be read.
    """

    classes: ClassMap
    labels: LabelSet
    inspected: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    occurrences: Counter[int] = field(default_factory=Counter)
    palette: Counter[tuple[int, tuple[int, int, int]]] = field(default_factory=Counter)
    misfits: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def add_unreadable(self, error: SpecError) -> None:
        """Count a label that could not be read."""
        self.unreadable.append(str(error).removeprefix("labels: "))

    def add(self, label: InspectedLabel) -> None:
        """Count the pixels of a label."""
        self.inspected += 1
        values, counts = _count(label.values)
        self.pixels.update(dict(zip(values, counts, strict=True)))
        self.occurrences.update(values)
        if label.palette is not None:
            for value, pixels in zip(values, counts, strict=True):
                if value < len(label.palette):
                    red, green, blue = label.palette[value].tolist()
                    self.palette[value, (red, green, blue)] += pixels
        if label.image_size is not None and label.values.shape != label.image_size:
            (h, w), (height, width) = label.values.shape, label.image_size
            self.misfits.append(f"{label.name}: label {h}x{w}, image {height}x{width} (height x width)")

    @cached_property
    def meanings(self) -> dict[int, int]:
        """The class id of each value, in order of the values; ``IGNORED`` or ``UNKNOWN`` for others."""
        values = sorted(self.pixels)
        return dict(zip(values, self.classes.classes_of(np.array(values, np.int64)).tolist(), strict=True))

    @cached_property
    def by_class(self) -> np.ndarray:
        """Pixels of each class, int64 (C,)."""
        by_class = np.zeros(len(self.classes.names), np.int64)
        for value, c in self.meanings.items():
            if c >= 0:
                by_class[c] += self.pixels[value]
        return by_class

    @property
    def absent(self) -> list[str]:
        """Names of the classes in no label, without those that are merged into others."""
        own = self.classes.mask(np.arange(len(self.by_class))) == np.arange(len(self.by_class))
        named = zip(self.classes.names, self.by_class, own, strict=True)
        return [name for name, pixels, is_own in named if is_own and not pixels]

    def fraction(self, values: Sequence[int]) -> float:
        """Return the fraction of all pixels that have one of these values."""
        total = self.pixels.total()
        return sum(self.pixels[v] for v in values) / total if total else 0.0

    def values_of(self, kind: int) -> list[int]:
        """Return the values that are ``IGNORED`` or ``UNKNOWN``, the most frequent first."""
        return sorted((v for v, c in self.meanings.items() if c == kind), key=lambda v: -self.pixels[v])

    def shown(self, values: Sequence[int]) -> str:
        """Return ``value 7: 12.3 %, value 9: 1.0 % and 3 more``."""
        shown = ", ".join(f"{shown_value(v)}: {percent(self.fraction([v]))}" for v in values[:_MAX_VALUES_SHOWN])
        return shown + (f" and {len(values) - _MAX_VALUES_SHOWN} more" if len(values) > _MAX_VALUES_SHOWN else "")


def percent(fraction: float) -> str:
    """Return ``12.3 %``; never 0.0 for more than nothing, nor 100.0 for less than all."""
    if 0 < fraction < 0.0005:
        return "< 0.1 %"
    return f"{min(100 * fraction, 99.9) if fraction < 1 else 100:.1f} %"


def _count(values: np.ndarray) -> tuple[list[int], list[int]]:
    """The values that occur, and how often."""
    if values.size and values.min() >= 0 and values.max() < 2**16:
        counts = np.bincount(values.ravel())
        present = np.flatnonzero(counts)
        return present.tolist(), counts[present].tolist()
    unique, counts = np.unique(values, return_counts=True)
    return unique.tolist(), counts.tolist()
