"""Nights of an output: what each one has promoted, and how the last one was judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from segbatch.labels import LabelSet
from segbatch.output.catalog import ShardRow
from segbatch.output.totals import CONFIDENCE_UNIT, Totals
from segbatch.report.charts import Line

_MAX_NIGHTS = 60
_MAX_CLASSES = 4


@dataclass(frozen=True)
class Drift:
    """One comparison of a night with earlier ones."""

    kind: str
    psi: float
    limit_psi: float
    js: float
    limit_js: float
    detail: str
    alert: bool


@dataclass(frozen=True)
class Judgement:
    """How a night was judged: the report of ``segbatch nightly`` on this output."""

    date: str
    state: str
    alerts: tuple[str, ...]
    notes: tuple[str, ...]
    drift: tuple[Drift, ...]
    compared_with: tuple[str, ...]


@dataclass(frozen=True)
class Night:
    """What one night has promoted: ``date`` is "" for shards that a plain run has computed."""

    date: str
    new: int
    changed: int
    totals: Totals

    @property
    def images(self) -> int:
        return self.totals.records - self.totals.failed

    @property
    def error_fraction(self) -> float:
        return self.totals.failed / self.totals.records if self.totals.records else 0.0

    @property
    def confidence(self) -> float:
        return sum(self.totals.confidence) / CONFIDENCE_UNIT / max(1, sum(self.totals.pixels))

    def share(self, class_id: int) -> float:
        return self.totals.pixels[class_id] / max(1, sum(self.totals.pixels))


@dataclass(frozen=True)
class Nights:
    """The nights of an output.

    Attributes:
        nights: The last ones, by date.
        earlier: Number of nights before them.
        lines: Images, errors, confidence, and the classes that changed most, over the nights.
        removed: Number of shards that are gone from the inputs.
        judgement: How the last night was judged; None if its report was not read.
    """

    nights: tuple[Night, ...]
    earlier: int
    lines: tuple[Line, ...]
    removed: int
    judgement: Judgement | None

    @staticmethod
    def of(rows: Iterable[ShardRow], labels: LabelSet, judgement: Judgement | None) -> Nights | None:
        """Sum the shards of a catalog by night; None without nights."""
        nights: dict[str, Night] = {}
        removed = 0
        for row in rows:
            if row.removed is not None:
                removed += 1
                continue
            night = nights.get(row.night) or Night(row.night, 0, 0, Totals(len(labels)))
            night.totals.add(row.sums.totals.expand(len(labels)))
            is_new = row.change == "new"
            nights[row.night] = Night(row.night, night.new + is_new, night.changed + (not is_new), night.totals)
        ordered = [nights[date] for date in sorted(nights)]
        if not any(night.date for night in ordered):
            return None
        kept = ordered[-_MAX_NIGHTS:]
        return Nights(tuple(kept), len(ordered) - len(kept), tuple(_lines(kept, labels)), removed, judgement)


def _lines(nights: list[Night], labels: LabelSet) -> list[Line]:
    dated = [night for night in nights if night.date and night.images]
    if len(dated) < 2:
        return []
    lines = [
        Line.of("Images", [(n.date, float(n.images)) for n in dated], "{:,.0f}", 0.0),
        Line.of("Share of errors", [(n.date, n.error_fraction) for n in dated], "{:.2%}", 0.0),
        Line.of("Mean confidence", [(n.date, n.confidence) for n in dated], "{:.3f}"),
    ]
    spread = {c: max(n.share(c) for n in dated) - min(n.share(c) for n in dated) for c in range(len(labels))}
    moved = sorted((c for c in spread if spread[c] > 0), key=lambda c: -spread[c])[:_MAX_CLASSES]
    titles = {c: f"Share of {labels.names[c]}" for c in moved}
    return lines + [Line.of(titles[c], [(n.date, n.share(c)) for n in dated], "{:.1%}", 0.0) for c in moved]
