"""What is counted of every mask: pixels, images and confidence of each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from segbatch.errors import SHARD_FAILURES
from segbatch.records import ClassCount

# Confidence is summed in 1/1024 of a pixel as an integer: the sum of a corpus is then exact, whatever the
# order in which chunks finish, and can be recomputed from the rows.
CONFIDENCE_UNIT = 1024


@dataclass
class Totals:
    """Sums over records: associative, commutative and exact, so that any order gives the same statistics."""

    num_classes: int
    records: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    confidence: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("images", "pixels", "confidence"):
            if not getattr(self, name):
                setattr(self, name, [0] * self.num_classes)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def failed_shards(self) -> int:
        """Shards that failed as a whole: each ends with one such error row."""
        return sum(self.errors.get(f"read/{kind}", 0) for kind in SHARD_FAILURES)

    def add_image(self, counts: Iterable[ClassCount]) -> None:
        self.records += 1
        for c in counts:
            self.images[c.class_id] += 1
            self.pixels[c.class_id] += c.pixels
            self.confidence[c.class_id] += round(c.confidence * c.pixels * CONFIDENCE_UNIT)

    def add_error(self, stage: str, kind: str) -> None:
        self.records += 1
        self.errors[f"{stage}/{kind}"] = self.errors.get(f"{stage}/{kind}", 0) + 1

    def add(self, other: Totals) -> None:
        """Add the sums of ``other``, which must count the same classes."""
        self.records += other.records
        for key, n in other.errors.items():
            self.errors[key] = self.errors.get(key, 0) + n
        for name in ("images", "pixels", "confidence"):
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), getattr(other, name), strict=True)])

    def to_json(self) -> dict[str, object]:
        """Plain data for a footer or run.json: only the classes that occur."""
        return {
            "records": self.records,
            "errors": dict(sorted(self.errors.items())),
            "classes": [
                [c, self.images[c], self.pixels[c], self.confidence[c]]
                for c in range(self.num_classes)
                if self.images[c]
            ],
        }

    @staticmethod
    def from_json(plain: dict, num_classes: int) -> Totals:
        totals = Totals(num_classes, plain["records"], dict(plain["errors"]))
        for c, images, pixels, confidence in plain["classes"]:
            totals.images[c], totals.pixels[c], totals.confidence[c] = images, pixels, confidence
        return totals
