"""What a page says about all rows of an output: sums and histograms with fixed bins, in one pass without masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.labels import LabelSet
from segbatch.output.totals import CONFIDENCE_UNIT, Totals
from segbatch.report.encoding import background_of

COLUMNS = ("image_id", "classes", "confidence", "error")
CONFIDENCE_BINS, CLASS_BINS, SHARE_BINS = 40, 20, 20
MAX_CLASSES = 10  # images with more classes are counted together
LOW_CONFIDENCE = 0.5
_MAX_EXAMPLES = 10


@dataclass(frozen=True)
class ErrorExample:
    """One record without a mask."""

    image_id: str
    message: str


@dataclass(frozen=True)
class Counts:
    """The classes in the masks of one batch, flat.

    Attributes:
        row: Row of the batch, int64 (M,).
        class_id: int64 (M,).
        pixels: int64 (M,).
        fraction: Share of the pixels of the image, float64 (M,).
        confidence: float64 (M,).
    """

    row: np.ndarray
    class_id: np.ndarray
    pixels: np.ndarray
    fraction: np.ndarray
    confidence: np.ndarray

    @staticmethod
    def of(batch: pa.RecordBatch) -> Counts:
        """Return the classes of a batch of rows."""
        lists = batch["classes"]
        flat = lists.flatten()

        def column(name: str, kind: type) -> np.ndarray:
            return pc.struct_field(flat, name).to_numpy(zero_copy_only=False).astype(kind)

        return Counts(
            pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64),
            column("class_id", np.int64),
            column("pixels", np.int64),
            column("fraction", np.float64),
            column("confidence", np.float64),
        )


@dataclass
class Summary:
    """Sums over rows.

    Attributes:
        labels: The classes.
        totals: The same sums as in run.json.
        confidence: Images by confidence, int64 (CONFIDENCE_BINS,), from 0 to 1.
        class_confidence: Images by the confidence of each class that they contain, int64 (C, CLASS_BINS).
        num_classes: Images by their number of classes, int64 (MAX_CLASSES + 1,); the last bin has those with more.
        foreground: Images by the share of their pixels that is not background, int64 (SHARE_BINS,); without a class
            for the background, by the share of their largest class.
        empty: Number of masks that are nothing but background.
        low: Number of masks with a confidence below ``LOW_CONFIDENCE``.
        examples: The first records of each kind of error.
    """

    labels: LabelSet
    totals: Totals = field(init=False)
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(CONFIDENCE_BINS, np.int64))
    class_confidence: np.ndarray = field(init=False)
    num_classes: np.ndarray = field(default_factory=lambda: np.zeros(MAX_CLASSES + 1, np.int64))
    foreground: np.ndarray = field(default_factory=lambda: np.zeros(SHARE_BINS, np.int64))
    empty: int = 0
    low: int = 0
    examples: dict[str, list[ErrorExample]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.totals = Totals(len(self.labels))
        self.class_confidence = np.zeros((len(self.labels), CLASS_BINS), np.int64)
        self.background = background_of(self.labels)

    @property
    def masks(self) -> int:
        """Number of rows with a mask."""
        return self.totals.records - self.totals.failed

    @property
    def mean_confidence(self) -> float:
        """Mean over all pixels."""
        return sum(self.totals.confidence) / CONFIDENCE_UNIT / max(1, sum(self.totals.pixels))

    def add(self, batch: pa.RecordBatch, counts: Counts) -> None:
        """Add a batch with the columns ``COLUMNS``, whose classes are ``counts``."""
        for image_id, error in _errors(batch):
            kind = f"{error['stage']}/{error['type']}"
            self.totals.add_error(error["stage"], error["type"])
            if len(examples := self.examples.setdefault(kind, [])) < _MAX_EXAMPLES:
                examples.append(ErrorExample(image_id, error["message"]))
        rows = np.flatnonzero(batch["classes"].is_valid().to_numpy(zero_copy_only=False))
        self.totals.records += len(rows)
        self._add_classes(counts)
        self._add_images(batch, counts, rows)

    def _add_classes(self, counts: Counts) -> None:
        size, ids = len(self.labels), counts.class_id
        units = np.rint(counts.confidence * counts.pixels * CONFIDENCE_UNIT).astype(np.int64)
        for sums, weights in ((self.totals.images, None), (self.totals.pixels, counts.pixels)):
            _add(sums, np.bincount(ids, weights, size))
        _add(self.totals.confidence, np.bincount(ids, units, size))
        flat = np.bincount(ids * CLASS_BINS + _bins(counts.confidence, CLASS_BINS), minlength=size * CLASS_BINS)
        self.class_confidence += flat.reshape(size, CLASS_BINS)

    def _add_images(self, batch: pa.RecordBatch, counts: Counts, rows: np.ndarray) -> None:
        confidence = batch["confidence"].drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
        self.confidence += np.bincount(_bins(confidence, CONFIDENCE_BINS), minlength=CONFIDENCE_BINS)
        self.low += int((confidence < LOW_CONFIDENCE).sum())
        of_row = np.bincount(counts.row, minlength=batch.num_rows)[rows]
        self.num_classes += np.bincount(np.minimum(of_row, MAX_CLASSES + 1), minlength=MAX_CLASSES + 2)[1:]
        share = np.zeros(batch.num_rows)
        if self.background is None:
            np.maximum.at(share, counts.row, counts.fraction)
        else:
            is_background = counts.class_id == self.background
            share[rows] = 1
            share[counts.row[is_background]] = 1 - counts.fraction[is_background]
            self.empty += int((share[rows] < 1e-9).sum())
        self.foreground += np.bincount(_bins(share[rows], SHARE_BINS), minlength=SHARE_BINS)


def _errors(batch: pa.RecordBatch) -> Iterator[tuple[str, dict[str, str]]]:
    failed = batch.filter(batch["error"].is_valid())
    yield from zip(failed["image_id"].to_pylist(), failed["error"].to_pylist(), strict=True)


def _bins(values: np.ndarray, count: int) -> np.ndarray:
    """Return the bin of each value from 0 to 1, of ``count`` equal ones."""
    return np.clip((values * count).astype(np.int64), 0, count - 1)


def _add(sums: list[int], more: np.ndarray) -> None:
    sums[:] = [a + int(b) for a, b in zip(sums, more.tolist(), strict=True)]
