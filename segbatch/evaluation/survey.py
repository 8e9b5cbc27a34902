"""A look at labels before they are used: which values they hold, what does not count, and what cannot be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from segbatch.errors import SpecError, visible
from segbatch.evaluation.class_map import IGNORED, UNKNOWN, ClassMap, shown_value
from segbatch.labels import IGNORE_INDEX, LabelSet

MAX_LABELS = 1000  # labels that are looked at, evenly spaced among all
_MAX_SHOWN = 30
_MAX_EXAMPLES = 5
_MAX_UNKNOWN = 0.5  # of the pixels: above it the values are not those of the classes
_MUCH_IGNORED = 0.3
_THREADS = 8


@dataclass(frozen=True)
class LookedAt:
    """A label: values int64 (H, W), its palette uint8 (N, 3) or None, and its image's (height, width) if known."""

    name: str
    values: np.ndarray
    palette: np.ndarray | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class ValueCount:
    """A label value: its class, ``ignored`` or ``unknown``; its share of all pixels, and how many labels hold it."""

    value: int
    meaning: str
    fraction: float
    labels: int


@dataclass(frozen=True)
class LabelSurvey:
    """What ``looked_at`` of ``labels`` labels hold. ``notes`` are about pairs, ``warnings`` about what may be wrong.

    Fractions are of all pixels: of each class, of ``ignored`` values and of ``unknown`` ones, which are no class.
    """

    labels: int
    looked_at: int
    class_fractions: dict[str, float]
    absent: tuple[str, ...]
    ignored: float
    unknown: float
    values: tuple[ValueCount, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a person: a line for each matter."""
        looked = "all" if self.looked_at == self.labels else f"{self.looked_at:,} of them"
        shares = sorted(self.class_fractions.items(), key=lambda item: -item[1])
        present = [f"{visible(name)} {_percent(share)}" for name, share in shares if share]
        more = f" and {len(present) - _MAX_SHOWN} more" if len(present) > _MAX_SHOWN else ""
        void = [shown_value(v.value) for v in self.values if v.meaning == "ignored"]
        ignored = f"; ignored {_percent(self.ignored)} ({', '.join(void[:_MAX_EXAMPLES])})" if void else ""
        held = ", ".join(present[:_MAX_SHOWN]) or "no class"
        return [
            *(f"labels: {note}" for note in self.notes),
            f"labels: {self.labels:,}, {looked} looked at: {held}{more}{ignored}",
            *(f"warning: labels: {warning}" for warning in self.warnings),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def survey(
    count: int,
    look: Callable[[int], LookedAt],
    classes: ClassMap,
    labels: LabelSet,
    *,
    strict: bool,
    check_palettes: bool = True,
    notes: Sequence[str] = (),
) -> LabelSurvey:
    """Look at up to ``MAX_LABELS`` of ``count`` labels, evenly spaced, in several threads.

    ``look`` reads one, or raises ``SpecError``. ``labels`` has the classes' colors. Raises ``SpecError`` if no pixel
    counts, if most hold values that are no class, if one class alone is left while other pixels are ignored and no map
    says that this is meant, or if palettes show the classes' colors under other values; with ``strict`` also if a label
    cannot be read or is of another size than its image.
    """
    chosen = range(count) if count <= MAX_LABELS else np.linspace(0, count - 1, MAX_LABELS).astype(int).tolist()
    found = _Counts(classes, labels)

    def try_to_look(index: int) -> LookedAt | SpecError:
        try:
            return look(index)
        except SpecError as e:
            return e

    with ThreadPoolExecutor(_THREADS) as pool:
        for label in pool.map(try_to_look, chosen):
            found.add(label)
    errors = [*found.impossible(check_palettes), *(found.unusable() if strict else ())]
    if errors:
        raise SpecError(f"labels: {errors[0]}")
    return found.result(count, (*(() if strict else found.unusable()), *found.doubtful()), notes)


@dataclass
class _Counts:
    classes: ClassMap
    labels: LabelSet
    looked_at: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    holders: Counter[int] = field(default_factory=Counter)
    palette: Counter[tuple[int, tuple[int, int, int]]] = field(default_factory=Counter)
    misfits: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def add(self, label: LookedAt | SpecError) -> None:
        if isinstance(label, SpecError):
            self.unreadable.append(str(label).removeprefix("labels: "))
            return
        self.looked_at += 1
        values, counts = _count(label.values)
        self.pixels.update(dict(zip(values, counts, strict=True)))
        self.holders.update(values)
        if label.palette is not None:
            for value, pixels in zip(values, counts, strict=True):
                if value < len(label.palette):
                    red, green, blue = label.palette[value].tolist()
                    self.palette[value, (red, green, blue)] += pixels
        if label.image_size is not None and label.values.shape != label.image_size:
            (h, w), (height, width) = label.values.shape, label.image_size
            self.misfits.append(f"{label.name}: label {h}x{w}, image {height}x{width} (height x width)")

    def _meanings(self) -> dict[int, int]:
        values = sorted(self.pixels)
        return dict(zip(values, self.classes.classes_of(np.array(values, np.int64)).tolist(), strict=True))

    def _fraction(self, values: Sequence[int]) -> float:
        total = self.pixels.total()
        return sum(self.pixels[v] for v in values) / total if total else 0.0

    def _by_class(self) -> np.ndarray:
        """Pixels of each class, int64 (C,)."""
        by_class = np.zeros(len(self.classes.names), np.int64)
        for value, c in self._meanings().items():
            if c >= 0:
                by_class[c] += self.pixels[value]
        return by_class

    def _of(self, kind: int) -> list[int]:
        """The values that are ``IGNORED`` or ``UNKNOWN``, the most frequent first."""
        return sorted((v for v, c in self._meanings().items() if c == kind), key=lambda v: -self.pixels[v])

    def _shown(self, values: Sequence[int]) -> str:
        shown = ", ".join(f"{shown_value(v)}: {_percent(self._fraction([v]))}" for v in values[:_MAX_EXAMPLES])
        return shown + (f" and {len(values) - _MAX_EXAMPLES} more" if len(values) > _MAX_EXAMPLES else "")

    def impossible(self, check_palettes: bool) -> list[str]:
        """What makes every figure, and every weight that is learned, meaningless."""
        if not self.looked_at:
            return (
                [f"none of {len(self.unreadable)} can be used, the first: {self.unreadable[0]}"]
                if self.unreadable
                else []
            )
        counts, void, unknown = self._by_class(), self._of(IGNORED), self._of(UNKNOWN)
        names = ", ".join(visible(n) for n in self.classes.names[:_MAX_EXAMPLES])
        classes = f"{len(counts)} classes ({names}{', …' if len(counts) > _MAX_EXAMPLES else ''})"
        found = []
        if check_palettes and (other := self._renumbered()):
            found.append(other)
        if self._fraction(unknown) > _MAX_UNKNOWN:
            found.append(
                f"{_percent(self._fraction(unknown))} of the pixels of {self.looked_at:,} labels hold values that are "
                f"none of {classes}: {self._shown(unknown)}; {self._remedy(unknown)}"
            )
        if not counts.any():
            found.append(
                f"no pixel of {self.looked_at:,} labels counts; ignored: {self._shown(void) or 'nothing'}; no class: "
                f"{self._shown(unknown) or 'nothing'}; give other labels, another --ignore, or --map FILE"
            )
        elif (counts > 0).sum() == 1 and len(counts) > 1 and (void or unknown) and not self.classes.explicit:
            name, first = visible(self.classes.names[int(counts.argmax())]), (*void, *unknown)[0]
            found.append(
                f"every pixel that counts is {name!r}, of {classes}; the others do not count: "
                f"{self._shown([*void, *unknown])}. If {first} is a class, say so in --map FILE, as '{first}: CLASS'; "
                f"if it is ignored, as '{first}: ignore'; with a line for each other value"
            )
        return found

    def unusable(self) -> list[str]:
        """Labels that cannot be read, or do not fit to their images."""
        found = []
        if self.unreadable:
            found.append(f"{len(self.unreadable):,} cannot be read, the first: {self.unreadable[0]}")
        if self.misfits:
            found.append(
                f"{len(self.misfits):,} are of another size than their image, the first: {self.misfits[0]}; a label "
                "has the size of its image as viewers show it"
            )
        return found

    def doubtful(self) -> list[str]:
        """What may be meant, and should be known."""
        found, void, unknown = [], self._of(IGNORED), self._of(UNKNOWN)
        if unknown:
            found.append(
                f"{_percent(self._fraction(unknown))} of the pixels hold values that are no class and do not count: "
                f"{self._shown(unknown)}; {self._remedy(unknown)}"
            )
        if self._fraction(void) > _MUCH_IGNORED:
            found.append(f"{_percent(self._fraction(void))} of the pixels are ignored: {self._shown(void)}")
        absent = self._absent()
        if absent:
            shown = ", ".join(visible(name) for name in absent[:_MAX_SHOWN])
            more = f" and {len(absent) - _MAX_SHOWN} more" if len(absent) > _MAX_SHOWN else ""
            beside = f" (ignored: {self._shown(void)})" if void else ""
            found.append(f"{len(absent)} of {len(self.classes.names)} classes are in no label: {shown}{more}{beside}")
        return found

    def _absent(self) -> list[str]:
        """Classes that no label holds, but for those that are merged into others."""
        counts = self._by_class()
        own = self.classes.mask(np.arange(len(counts))) == np.arange(len(counts))
        return [
            name for name, pixels, is_own in zip(self.classes.names, counts, own, strict=True) if is_own and not pixels
        ]

    def _remedy(self, unknown: Sequence[int]) -> str:
        last, counts = len(self.classes.names), self._by_class()
        if list(unknown) == [last] and not counts[0]:
            first = visible(self.classes.names[0])
            return f"if values count from 1, --reduce-zero-label makes 0 ignored and 1 {first!r}"
        if min(unknown) < 0:
            return "name these colors in the table of --label-colors"
        return "say in --map FILE which class each value is, or leave it out by --ignore"

    def _renumbered(self) -> str | None:
        """Why values are not believed: palettes show each value in the color of another class."""
        colors = {color: i for i, color in enumerate(self.labels.colors)}
        if len(colors) < len(self.labels) or not self.palette:
            return None
        void = tuple(np.frombuffer(self.labels.palette(), np.uint8).reshape(-1, 3)[IGNORE_INDEX].tolist())
        colors.setdefault(void, IGNORED)
        if any(color not in colors for _, color in self.palette):
            return None
        merged = self.classes.mask(np.arange(len(self.labels)))
        meanings = self._meanings()
        wrong = [
            (pixels, value, color)
            for (value, color), pixels in self.palette.items()
            if (IGNORED if colors[color] == IGNORED else merged[colors[color]]) != meanings[value]
        ]
        if not wrong:
            return None
        _, value, color = max(wrong)
        drawn = "what is ignored" if colors[color] == IGNORED else repr(visible(self.labels.names[colors[color]]))
        meant = {IGNORED: "ignored", UNKNOWN: "no class"}.get(meanings[value]) or repr(
            self.classes.names[meanings[value]]
        )
        share = sum(p for p, _, _ in wrong) / self.palette.total()
        return (
            f"the palettes say other classes than the values for {_percent(share)} of the pixels: value {value}, which "
            f"is {visible(meant)}, is drawn in {color}, the color of {drawn}. --label-colors classes believes the "
            "colors, --label-colors indices the values"
        )

    def result(self, count: int, warnings: Sequence[str], notes: Sequence[str]) -> LabelSurvey:
        meanings, total = self._meanings(), max(1, self.pixels.total())
        kinds = {IGNORED: "ignored", UNKNOWN: "unknown"}
        return LabelSurvey(
            labels=count,
            looked_at=self.looked_at,
            class_fractions={n: int(p) / total for n, p in zip(self.classes.names, self._by_class(), strict=True)},
            absent=tuple(self._absent()),
            ignored=self._fraction(self._of(IGNORED)),
            unknown=self._fraction(self._of(UNKNOWN)),
            values=tuple(
                ValueCount(v, kinds.get(c) or self.classes.names[c], self._fraction([v]), self.holders[v])
                for v, c in list(meanings.items())[: 2**10]
            ),
            warnings=tuple(warnings),
            notes=tuple(notes),
        )


def _count(values: np.ndarray) -> tuple[list[int], list[int]]:
    """The values that occur, and how often."""
    if values.size and values.min() >= 0 and values.max() < 2**16:
        counts = np.bincount(values.ravel())
        present = np.flatnonzero(counts)
        return present.tolist(), counts[present].tolist()
    found, counts = np.unique(values, return_counts=True)
    return found.tolist(), counts.tolist()


def _percent(fraction: float) -> str:
    """``12.3 %``; never 0.0 for something, or 100.0 for less than all."""
    if 0 < fraction < 0.0005:
        return "< 0.1 %"
    return f"{min(100 * fraction, 99.9) if fraction < 1 else 100:.1f} %"
