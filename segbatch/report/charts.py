"""Numbers as shapes: what the macros of ``charts.html.j2`` draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segbatch.text import counted


@dataclass(frozen=True)
class Bar:
    """A bar: what it stands for, and its height, 0 to 1."""

    title: str
    height: float


@dataclass(frozen=True)
class Histogram:
    """A histogram.

    Attributes:
        title: Its heading.
        bars: From left to right.
        ticks: Position along the axis, 0 to 1, and label.
        note: A sentence below it.
        max_label: The number that the highest bar stands for.
    """

    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    note: str
    max_label: str

    @staticmethod
    def of_shares(title: str, counts: Sequence[int], note: str, *, percent: bool = False) -> Histogram:
        """Draw counts in equal bins from 0 to 1, without the empty ones at the left if these are many."""
        size = len(counts)
        first = next((i for i, count in enumerate(counts) if count), 0)
        first = first // (size // 4) * (size // 4)  # a quarter or more is left out

        def text(value: float) -> str:
            return f"{100 * value:g}%" if percent else f"{value:g}"

        bars = [
            Bar(f"{text(i / size)} to {text((i + 1) / size)}: {counted(n, 'image')}", n / (max(counts) or 1))
            for i, n in enumerate(counts)
            if i >= first
        ]
        low = first / size
        marks = [low + (1 - low) * i / 4 for i in range(5)]
        ticks = tuple((i / 4, text(round(mark, 4))) for i, mark in enumerate(marks))
        return Histogram(title, tuple(bars), ticks, note, f"{max(counts):,}")

    @staticmethod
    def of_numbers(title: str, counts: Sequence[int], note: str) -> Histogram:
        """Draw counts of 1, 2, 3, …; the last bin has all larger numbers."""
        last = len(counts) - 1
        names = [f"more than {last}" if i == last else str(i + 1) for i in range(len(counts))]
        bars = [Bar(f"{names[i]}: {counted(n, 'image')}", n / (max(counts) or 1)) for i, n in enumerate(counts)]
        ticks = tuple(((i + 0.5) / len(counts), f">{last}" if i == last else str(i + 1)) for i in range(len(counts)))
        return Histogram(title, tuple(bars), ticks, note, f"{max(counts):,}")


@dataclass(frozen=True)
class Line:
    """A line over dates.

    Attributes:
        title: Its heading.
        points: (x, y) of each value, 0 to 1, y upwards, and what it stands for.
        low: Label of the lowest value of the axis.
        high: Label of the highest.
        first: Label of the first date.
        last: Label of the last.
    """

    title: str
    points: tuple[tuple[float, float, str], ...]
    low: str
    high: str
    first: str
    last: str

    @staticmethod
    def of(title: str, values: Sequence[tuple[str, float]], shown: str, floor: float | None = None) -> Line:
        """Draw (date, value) pairs, the values in the format ``shown``; the axis starts at ``floor`` if given."""
        low = min(v for _, v in values) if floor is None else floor
        high = max(max(v for _, v in values), low + 1e-9)
        step = 1 / max(1, len(values) - 1)
        points = [
            (i * step, (value - low) / (high - low), f"{date}: {shown.format(value)}")
            for i, (date, value) in enumerate(values)
        ]
        return Line(title, tuple(points), shown.format(low), shown.format(high), values[0][0], values[-1][0])
