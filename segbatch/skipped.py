"""Inputs that are not records, counted by reason, with example names."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_NAMES = 20


@dataclass
class SkippedKind:
    """Number of objects skipped for one reason, and the first ``MAX_NAMES`` of their names in sorted order."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> None:
        self.count += count
        self._keep(name)

    def merge(self, other: SkippedKind) -> None:
        self.count += other.count
        for name in other.names:
            self._keep(name)

    def _keep(self, name: str) -> None:
        at = bisect.bisect_left(self.names, name)
        if at < MAX_NAMES and self.names[at : at + 1] != [name]:
            self.names.insert(at, name)
            del self.names[MAX_NAMES:]


@dataclass
class Skipped:
    """Counts of skipped objects by reason. Merging is commutative: the order of chunks does not matter."""

    kinds: dict[str, SkippedKind] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.kinds)

    @property
    def count(self) -> int:
        return sum(kind.count for kind in self.kinds.values())

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count objects. ``name`` of the first one is displayed: redacted, and relative to the corpus root."""
        self.kinds.setdefault(reason, SkippedKind()).add(name, count)

    def merge(self, other: Skipped) -> None:
        for reason, kind in other.kinds.items():
            self.kinds.setdefault(reason, SkippedKind()).merge(kind)

    def below(self, prefix: str) -> Skipped:
        """Return a copy with ``prefix`` before every name."""
        return Skipped({r: SkippedKind(k.count, [prefix + n for n in k.names]) for r, k in self.kinds.items()})

    def without(self, *reasons: str) -> Skipped:
        return Skipped({r: kind for r, kind in self.kinds.items() if r not in reasons})

    def lines(self) -> Iterator[str]:
        """Yield ``12 with an unknown suffix: a.arw, b.pdf, …`` for each reason, the most frequent first."""
        for reason, kind in sorted(self.kinds.items(), key=lambda item: (-item[1].count, item[0])):
            more = ", …" if kind.count > len(kind.names) else ""
            yield f"{kind.count:,} {reason}: {', '.join(kind.names)}{more}"

    def to_json(self) -> dict[str, Any]:
        return {reason: {"count": k.count, "names": k.names} for reason, k in sorted(self.kinds.items())}

    @staticmethod
    def merged(*parts: Skipped) -> Skipped:
        total = Skipped()
        for part in parts:
            total.merge(part)
        return total

    @staticmethod
    def from_json(plain: dict[str, Any]) -> Skipped:
        return Skipped({reason: SkippedKind(k["count"], list(k["names"])) for reason, k in plain.items()})
