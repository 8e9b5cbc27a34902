"""``segbatch diff``: how much the masks of two outputs agree, class by class, and where they differ most."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.config.base import refuse_blank
from segbatch.errors import SpecError
from segbatch.evaluation import scores
from segbatch.evaluation.agreement import CommonClasses, class_iou, confusion, have_equal_pixels, largest_changes
from segbatch.logs import LogReporter
from segbatch.protocols import Reporter
from segbatch.results.dataset import MaskDataset
from segbatch.results.join import Join
from segbatch.results.row import MaskRow
from segbatch.text import counted

_STEP = 100  # images per progress step


@dataclass(frozen=True, order=True)
class ChangedImage:
    """An image whose masks differ.

    Attributes:
        changed: Fraction of its pixels that have another class, 0 to 1.
        image_id: Its id in both outputs.
        a, b: Its rows.
        mean_iou: Mean IoU of the two masks over the classes in either.
        changes: (class in A, class in B, pixels) of the largest changes.
    """

    changed: float
    image_id: str
    a: MaskRow = field(compare=False, repr=False)
    b: MaskRow = field(compare=False, repr=False)
    mean_iou: float = field(compare=False)
    changes: tuple[tuple[str, str, int], ...] = field(compare=False)


@dataclass(frozen=True)
class ClassLine:
    """A class of two outputs.

    Attributes:
        id: Its position in ``CommonClasses.names``.
        name: Its name.
        iou: IoU of its pixels in A and in B.
        pixels_a, pixels_b: Its pixels in each.
        confused: The class that most of its other pixels of A have in B, with their fraction; "" if there are none.
    """

    id: int
    name: str
    iou: float
    pixels_a: int
    pixels_b: int
    confused: str


@dataclass(frozen=True)
class Difference:
    """Output A compared with output B, image by image.

    Attributes:
        a, b: Their URIs, redacted.
        classes: The classes of both, matched by name.
        images: Number of images with a mask in both.
        equal: Number of these whose masks are equal.
        confusion: int64 (C, C), pixels that are class i in A and class j in B.
        changed: The images that differ most, first the one with the largest fraction of changed pixels.
        errors_only_a, errors_only_b: Images that are an error in one and a mask in the other.
        errors_both: Images that are an error in both.
        other_size: Images whose masks have different sizes; they are not compared.
        only_a, only_b: Images that only one of them has.
        notes: What else should be known, one line each.
    """

    a: str
    b: str
    classes: CommonClasses
    images: int
    equal: int
    confusion: np.ndarray
    changed: tuple[ChangedImage, ...]
    errors_only_a: int
    errors_only_b: int
    errors_both: int
    other_size: int
    only_a: int
    only_b: int
    notes: tuple[str, ...]

    @property
    def class_iou(self) -> np.ndarray:
        """IoU of each class of A with that of B, float64 (C,); NaN for a class in neither."""
        return class_iou(self.confusion)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur."""
        return float(scores.mean(self.class_iou))

    @property
    def pixel_agreement(self) -> float:
        """Fraction of the pixels that have the same class; NaN without pixels."""
        return float(scores.ratio(np.trace(self.confusion), self.confusion.sum()))

    def lines(self) -> list[ClassLine]:
        """Return the classes that occur, lowest IoU first."""
        pixels_a, pixels_b = self.confusion.sum(axis=1).tolist(), self.confusion.sum(axis=0).tolist()
        others = self.confusion - np.diag(np.diag(self.confusion))
        lines = []
        for i, (name, iou) in enumerate(zip(self.classes.names, self.class_iou.tolist(), strict=True)):
            j = int(others[i].argmax())
            confused = f"{self.classes.names[j]} {others[i, j] / pixels_a[i]:.1%}" if others[i, j] else ""
            if pixels_a[i] + pixels_b[i]:
                lines.append(ClassLine(i, name, iou, pixels_a[i], pixels_b[i], confused))
        return sorted(lines, key=lambda line: (line.iou, line.id))

    def to_json(self) -> dict[str, Any]:
        """Return plain data; NaN is None."""
        rows, columns = self.confusion.sum(axis=1).tolist(), self.confusion.sum(axis=0).tolist()
        plain = {key: value for key, value in vars(self).items() if key not in ("confusion", "changed")}
        return plain | {
            "classes_only_a": list(self.classes.only_a),
            "classes_only_b": list(self.classes.only_b),
            "pixel_agreement": _or_none(self.pixel_agreement),
            "mean_iou": _or_none(self.mean_iou),
            "classes": [
                {"name": name, "iou": _or_none(iou), "pixels_a": a, "pixels_b": b}
                for name, iou, a, b in zip(self.classes.names, self.class_iou.tolist(), rows, columns, strict=True)
            ],
            "confusion": self.confusion.tolist(),
            "changed": [
                {
                    "image_id": image.image_id,
                    "changed": image.changed,
                    "mean_iou": image.mean_iou,
                    "changes": [{"a": a, "b": b, "pixels": pixels} for a, b, pixels in image.changes],
                }
                for image in self.changed
            ],
        }


def diff(
    a: str,
    b: str,
    *,
    images: int = 12,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Difference:
    """Compare the masks of output B with those of output A, image by image.

    Images are joined by id, classes by name. Masks with equal bytes are counted by their columns alone; all others are
    decoded, about 4 ms an image. Memory does not depend on the number of images, but for 12 bytes each.

    Args:
        a: The output that is compared: rows of the confusion matrix.
        b: The output that it is compared with: columns of the confusion matrix.
        images: Number of images to name that differ most.
        storage_options: Passed to fsspec.
        reporter: Receives messages about the work.

    Raises:
        PlanError: One of them is not an output of segbatch.
        SpecError: They have no image in common.
        OutputError: A result file cannot be read.
    """
    refuse_blank(a=a, b=b)
    reporter = reporter or LogReporter()
    first, second = (MaskDataset.open(uri, storage_options=storage_options) for uri in (a, b))
    join, sums = Join(first, second), _Sums(first, second, images)
    reporter.phase("comparing images", len(first))
    try:
        for count, (row_a, row_b) in enumerate(join, 1):
            sums.add(row_a, row_b)
            if count % _STEP == 0:
                reporter.advanced(_STEP)
    finally:
        reporter.closed()
    if not sums.rows:
        raise SpecError(
            f"{first.output.uri} and {second.output.uri} have no image in common (A has {', '.join(join.names_a[:2])}, "
            f"B {', '.join(join.names_b[:2])}); compare outputs of the same inputs"
        )
    return sums.result(join)


class _Sums:
    """Sums over the pairs so far."""

    def __init__(self, a: MaskDataset, b: MaskDataset, max_changed: int) -> None:
        self._a, self._b, self._max_changed = a, b, max_changed
        self._classes = CommonClasses(a.classes, b.classes)
        self._counts = np.zeros((len(self._classes.names),) * 2, np.int64)
        self._changed: list[ChangedImage] = []  # a heap, the smallest first
        self.rows = self._images = self._equal = self._other_size = 0
        self._errors = {(True, False): 0, (False, True): 0, (True, True): 0}

    def add(self, a: MaskRow, b: MaskRow) -> None:
        self.rows += 1
        if a.png is None or b.png is None:
            self._errors[a.png is None, b.png is None] += 1
        elif (a.height, a.width) != (b.height, b.width):
            self._other_size += 1
        elif self._classes.are_equal and have_equal_pixels(a.png, b.png):
            self._images += 1
            self._equal += 1
            for count in a.classes:
                self._counts[count.class_id, count.class_id] += count.pixels
        else:
            self._compare(a, b)

    def _compare(self, a: MaskRow, b: MaskRow) -> None:
        assert a.mask is not None
        assert b.mask is not None
        counts = confusion(a.mask, self._classes.from_b(b.mask), len(self._classes.names))
        self._counts += counts
        self._images += 1
        pixels = int(counts.sum())
        changed = pixels - int(np.trace(counts))
        if not changed:
            self._equal += 1
            return
        changes = tuple(largest_changes(counts, self._classes.names))
        image = ChangedImage(changed / pixels, a.image_id, a, b, float(scores.mean(class_iou(counts))), changes)
        heapq.heappush(self._changed, image)
        if len(self._changed) > self._max_changed:
            heapq.heappop(self._changed)

    def result(self, join: Join) -> Difference:
        return Difference(
            a=self._a.output.uri,
            b=self._b.output.uri,
            classes=self._classes,
            images=self._images,
            equal=self._equal,
            confusion=self._counts,
            changed=tuple(sorted(self._changed, key=lambda image: (-image.changed, image.image_id))),
            errors_only_a=self._errors[True, False],
            errors_only_b=self._errors[False, True],
            errors_both=self._errors[True, True],
            other_size=self._other_size,
            only_a=join.only_a,
            only_b=join.only_b,
            notes=tuple(self._notes(join)),
        )

    def _notes(self, join: Join) -> list[str]:
        notes = [f"{name} is not finished: its committed chunks are compared" for name in self._unfinished()]
        for side, count, names in (("A", join.only_a, join.names_a), ("B", join.only_b, join.names_b)):
            if count:
                notes.append(f"only in {side}: {counted(count, 'image')}, such as {', '.join(names)}")
        for side, classes in (("A", self._classes.only_a), ("B", self._classes.only_b)):
            if classes:
                notes.append(f"classes that only {side} has: {', '.join(classes)}")
        for side, pair in (("A", (True, False)), ("B", (False, True))):
            if count := self._errors[pair]:
                notes.append(f"an error in {side} alone: {counted(count, 'image')}")
        if count := self._errors[True, True]:
            notes.append(f"an error in both: {counted(count, 'image')}")
        if self._other_size:
            notes.append(f"masks of different sizes, not compared: {counted(self._other_size, 'image')}")
        return notes

    def _unfinished(self) -> list[str]:
        return [side for side, each in (("A", self._a), ("B", self._b)) if not each.is_complete]


def _or_none(value: float) -> float | None:
    return None if value != value else value
