"""What is counted of every mask: pixels, images and confidence of each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

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
        self.images = self.images or [0] * self.num_classes
        self.pixels = self.pixels or [0] * self.num_classes
        self.confidence = self.confidence or [0] * self.num_classes

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
        self.images = [a + b for a, b in zip(self.images, other.images, strict=True)]
        self.pixels = [a + b for a, b in zip(self.pixels, other.pixels, strict=True)]
        self.confidence = [a + b for a, b in zip(self.confidence, other.confidence, strict=True)]

    def sparse(self) -> SparseTotals:
        """Return the totals as they are stored."""
        classes = ((c, self.images[c], self.pixels[c], self.confidence[c]) for c in range(self.num_classes))
        present = [row for row in classes if row[1]]
        return SparseTotals(records=self.records, errors=dict(sorted(self.errors.items())), classes=present)


class SparseTotals(BaseModel):
    """Totals as they are stored: only the classes that occur, each (class id, images, pixels, confidence)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    records: int = 0
    errors: dict[str, int] = {}
    classes: list[tuple[int, int, int, int]] = []

    def expand(self, num_classes: int) -> Totals:
        """Return the totals of ``num_classes`` classes. Raises ``ValueError`` for an id that is not one of them."""
        totals = Totals(num_classes, self.records, dict(self.errors))
        for class_id, images, pixels, confidence in self.classes:
            if not 0 <= class_id < num_classes:
                raise ValueError(f"class {class_id} of {num_classes}")
            totals.images[class_id], totals.pixels[class_id] = images, pixels
            totals.confidence[class_id] = confidence
        return totals
