"""Sums over masks: pixels, images and confidence of each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from segbatch.errors import SHARD_FAILURES
from segbatch.records import ClassCount

# Confidence is summed as an integer, in 1/1024: the sum over a corpus is exact in whatever order chunks finish, and
# can be recomputed from the rows.
CONFIDENCE_UNIT = 1024


@dataclass
class Totals:
    """Sums over records: associative, commutative and exact, so that any order gives the same statistics.

    Attributes:
        num_classes: Number of classes.
        records: Number of records.
        errors: Number of error rows by ``stage/type``.
        images: Number of images that contain each class.
        pixels: Number of pixels of each class.
        confidence: Sum of the confidence of the pixels of each class, in units of 1/1024.
    """

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
        """Number of error rows."""
        return sum(self.errors.values())

    @property
    def failed_shards(self) -> int:
        """Number of shards that failed as a whole: each ends with one such error row."""
        return sum(self.errors.get(f"read/{kind}", 0) for kind in SHARD_FAILURES)

    def add_image(self, counts: Iterable[ClassCount]) -> None:
        """Add the classes of one mask."""
        self.records += 1
        for c in counts:
            self.images[c.class_id] += 1
            self.pixels[c.class_id] += c.pixels
            self.confidence[c.class_id] += round(c.confidence * c.pixels * CONFIDENCE_UNIT)

    def add_error(self, stage: str, kind: str) -> None:
        """Add one error row."""
        self.records += 1
        self.errors[f"{stage}/{kind}"] = self.errors.get(f"{stage}/{kind}", 0) + 1

    def add(self, other: Totals) -> None:
        """Add the totals of ``other``, which must have the same classes."""
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
        """Return the totals of ``num_classes`` classes. Raises ``ValueError`` for a class id that is not below."""
        totals = Totals(num_classes, self.records, dict(self.errors))
        for class_id, images, pixels, confidence in self.classes:
            if not 0 <= class_id < num_classes:
                raise ValueError(f"class {class_id} of {num_classes}")
            totals.images[class_id], totals.pixels[class_id] = images, pixels
            totals.confidence[class_id] = confidence
        return totals
