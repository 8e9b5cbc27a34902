"""Select, merge and clean the classes of masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segbatch.codecs.components import components
from segbatch.errors import SpecError
from segbatch.exports.options import ExportOptions
from segbatch.labels import IGNORE_INDEX, LabelSet
from segbatch.records import ClassCount
from segbatch.registry import suggest

_BACKGROUND = frozenset({"background", "_background_", "bg"})
_IGNORE = "ignore"
_WIDE_VOID = 65_535


@dataclass(frozen=True)
class Selected:
    """A mask of an export.

    Attributes:
        mask: Class ids and ``Selection.void``, (H, W), read-only.
        classes: Its classes, most pixels first.
        voided: Classes of the original mask whose pixels are ignored, because their confidence is low.
        small: Areas that were removed.
    """

    mask: np.ndarray
    classes: tuple[ClassCount, ...]
    voided: int = 0
    small: int = 0


@dataclass(frozen=True)
class Selection:
    """The classes of an export, and how masks and statistics of an output become those of the export.

    Attributes:
        labels: The classes of the export.
        background: Id of the background class, if there is one.
        void: Value of ignored pixels.
        lookup: Class id of the output -> of the export, or ``void``; (C,).
        min_area: See ``ExportOptions``.
        void_below: See ``ExportOptions``.
        instances: See ``ExportOptions``.
    """

    labels: LabelSet
    background: int | None
    void: int
    lookup: np.ndarray
    min_area: int
    void_below: float
    instances: bool

    @staticmethod
    def of(labels: LabelSet, options: ExportOptions) -> Selection:
        """Return the selection that options describe.

        Classes that are not selected become background where the output has a class of that name, else ignored.

        Raises:
            SpecError: Names the class that does not exist.
        """
        merged = _merged(labels, options.class_map)
        names = list(dict.fromkeys(name for name in merged if name is not None))
        chosen = _chosen(names, options.classes)
        background = names[0] if names and names[0].casefold() in _BACKGROUND else None
        kept = [n for n in names if not chosen or n in chosen or n == background]
        if not [name for name in kept if name != background]:
            raise SpecError("--classes and --class-map leave no class but the background; keep at least one")
        colors = {name: labels.colors[i] for i, name in reversed(list(enumerate(merged))) if name is not None}
        colors |= {n: c for n, c in zip(labels.names, labels.colors, strict=True) if n in kept}
        void = IGNORE_INDEX if len(kept) <= IGNORE_INDEX else _WIDE_VOID
        other = void if background is None else 0
        ids = [void if n is None else kept.index(n) if n in kept else other for n in merged]
        return Selection(
            labels=LabelSet.of(kept, [colors[name] for name in kept]),
            background=None if background is None else 0,
            void=void,
            lookup=np.array(ids, np.uint8 if void == IGNORE_INDEX else np.uint16),
            min_area=options.min_area,
            void_below=options.void_below,
            instances=options.instances,
        )

    def apply(self, mask: np.ndarray, classes: Iterable[ClassCount]) -> Selected:
        """Return the mask of the export for one of the output, and for the classes of its row."""
        classes = tuple(classes)
        lookup = np.full(max(len(self.lookup), int(mask.max(initial=0)) + 1), self.void, self.lookup.dtype)
        lookup[: len(self.lookup)] = self.lookup
        uncertain = [count.class_id for count in classes if count.confidence < self.void_below]
        lookup[uncertain] = self.void
        selected = lookup[mask]
        small = self._remove_small_areas(selected)
        selected.flags.writeable = False
        return Selected(selected, self._counts(selected, classes), len(uncertain), small)

    def _remove_small_areas(self, mask: np.ndarray) -> int:
        """Replace small areas by background, or by ignored pixels, in place; return their number."""
        if self.min_area <= 1:
            return 0
        if self.instances:
            region, areas = components(mask)
        else:
            region, areas = mask, np.bincount(mask.ravel(), minlength=self.void + 1)
        kept = [self.void] if self.background is None else [self.void, self.background]
        small = (areas < self.min_area)[region] & ~np.isin(mask, kept)
        count = len(np.unique(region[small]))
        mask[small] = kept[-1]
        return count

    def _counts(self, mask: np.ndarray, classes: Sequence[ClassCount]) -> tuple[ClassCount, ...]:
        """Count the pixels of each class; its confidence is the mean over the classes that it was merged from."""
        pixels = np.bincount(mask.ravel(), minlength=self.void + 1)
        sums, weights = np.zeros(len(self.labels)), np.zeros(len(self.labels))
        for count in classes:
            new = int(self.lookup[count.class_id])
            if new != self.void and count.confidence >= self.void_below:
                sums[new] += count.confidence * count.pixels
                weights[new] += count.pixels
        counts = [
            ClassCount(i, int(n), float(n / mask.size), float(sums[i] / weights[i]) if weights[i] else 0.0)
            for i, n in enumerate(pixels[: len(self.labels)])
            if n
        ]
        return tuple(sorted(counts, key=lambda count: (-count.pixels, count.class_id)))


def _chosen(names: Sequence[str], given: Iterable[str]) -> set[str]:
    """Return the classes that are named, each alone or several with commas; names may contain commas themselves."""
    chosen = {name for text in given for name in ([text] if text in names else text.split(","))}
    for name in sorted(chosen.difference(names)):
        raise SpecError(f"--classes: {name!r} is not a class of the export{suggest(name, names)}")
    return chosen


def _merged(labels: LabelSet, class_map: Mapping[str, str]) -> list[str | None]:
    """Return the name of each class after merging, None for ignored ones. Raises ``SpecError``."""
    names: list[str | None] = list(labels.names)
    for given, target in class_map.items():
        if given not in labels.names:
            raise SpecError(f"--class-map: {given!r} is not a class of the output{suggest(given, labels.names)}")
        final = class_map.get(target, target)
        if final != target:
            raise SpecError(
                f"--class-map: {given!r} becomes {target!r}, which becomes {final!r}; name the last of them"
            )
        names[labels.names.index(given)] = None if target == _IGNORE else target
    return names
