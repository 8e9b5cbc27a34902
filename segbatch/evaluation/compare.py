"""The work of one evaluation task: compare the rows of some result files with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.codecs import mask_png
from segbatch.errors import SpecError
from segbatch.evaluation.bootstrap import BootstrapAccumulator, ImageCounts, StatedConfidence, count_image
from segbatch.evaluation.class_map import ClassMap, UnknownValues
from segbatch.evaluation.label_images import LabelFile, LabelReader
from segbatch.evaluation.labeled_rows import IS_LABEL
from segbatch.output.result_file import ResultFile
from segbatch.storage.store import Store

_ROWS = 32
MAX_EXAMPLES = 5
_NO_LABEL = -2  # instead of the index of an image's label, as IS_LABEL


@dataclass
class Finding:
    """Something that occurred ``times`` times, and its first examples in order of their names."""

    times: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, times: int, examples: Iterable[str]) -> None:
        self.times += times
        self.examples = sorted([*self.examples, *examples])[:MAX_EXAMPLES]


@dataclass
class PartialEvaluation:
    """The results of some result files; they add up to those of the output in any order.

    Attributes:
        sums: Over the images that were compared.
        compared: How many rows were compared with each label, int32 (L,).
        findings: What could not be compared, by kind.
        unknown: Label values that are neither a class nor ignored.
    """

    sums: BootstrapAccumulator
    compared: np.ndarray
    findings: dict[str, Finding] = field(default_factory=dict)
    unknown: UnknownValues = field(default_factory=UnknownValues)

    def add_finding(self, kind: str, example: str) -> None:
        """Count one occurrence of ``kind``."""
        self.findings.setdefault(kind, Finding()).add(1, [example])

    def __iadd__(self, other: PartialEvaluation) -> PartialEvaluation:
        self.sums += other.sums
        self.compared += other.compared
        for kind, finding in other.findings.items():
            self.findings.setdefault(kind, Finding()).add(finding.times, finding.examples)
        self.unknown.merge(other.unknown)
        return self


@dataclass(frozen=True)
class GroundTruth:
    """What all tasks compare with.

    Attributes:
        places: Index in ``labels`` of each image's label; ``IS_LABEL`` for an image that is a label itself.
        resamples: Bootstrap replicates.
    """

    labels: Sequence[LabelFile]
    places: Mapping[str, int]
    class_map: ClassMap
    reader: LabelReader
    resamples: int
    seed: int

    def no_rows(self) -> PartialEvaluation:
        """Return the results of no rows."""
        sums = BootstrapAccumulator(len(self.class_map.names), self.resamples, self.seed)
        return PartialEvaluation(sums, np.zeros(len(self.labels), np.int32))


def compare_files(store: Store, files: list[ResultFile], truth: GroundTruth) -> PartialEvaluation:
    """Compare every row of some result files with its label."""
    part = truth.no_rows()
    for file in files:
        for batch in file.read(store, ["image_id", "mask", "classes", "confidence", "error"]).to_batches(_ROWS):
            places: list[int] = []
            counts: list[ImageCounts] = []
            for row in batch.to_pylist():
                place = truth.places.get(row["image_id"], _NO_LABEL)
                try:
                    counts.append(_count(row, place, truth, part.unknown))
                except _NotComparable as e:
                    part.add_finding(e.kind, e.example)
                else:
                    places.append(place)
            # Bootstrap draws follow from the label's name: they are equal for two outputs.
            part.sums.add([os.path.splitext(truth.labels[place].name)[0] for place in places], counts)
            np.add.at(part.compared, places, 1)
    return part


class _NotComparable(Exception):
    """A row cannot be compared with a label."""

    def __init__(self, kind: str, example: str) -> None:
        super().__init__(kind, example)
        self.kind, self.example = kind, example


def _count(row: dict[str, Any], place: int, truth: GroundTruth, unknown: UnknownValues) -> ImageCounts:
    """The counts of one row; label values without a class are added to ``unknown``."""
    image, num_classes = row["image_id"], len(truth.class_map.names)
    if row["error"] is not None:
        raise _NotComparable("error rows", f"{image}: {row['error']['stage']}/{row['error']['type']}")
    if place == _NO_LABEL:
        raise _NotComparable("images without a label", image)
    if place == IS_LABEL:
        raise _NotComparable("images that are labels", image)
    try:
        written = mask_png.decode(row["mask"])
        mask = truth.class_map.mask(written)
        stated = _stated(row, written, num_classes)
    except (OSError, ValueError, TypeError) as e:
        raise _NotComparable("masks that cannot be read", f"{image}: {e}") from e
    try:
        label = truth.reader.read(truth.labels[place].uri).values
    except SpecError as e:
        raise _NotComparable("labels that cannot be read", str(e).removeprefix("labels: ")) from e
    if label.shape != mask.shape:
        sizes = f"label {label.shape[0]}x{label.shape[1]}, mask {mask.shape[0]}x{mask.shape[1]}"
        raise _NotComparable("labels of another size than the image", f"{image}: {sizes} (height x width)")
    ids, without_class = truth.class_map.truth(label)
    for value, pixels in without_class.items():
        unknown.add(value, pixels, image)
    if (ids < 0).all():
        raise _NotComparable("labels without a pixel that counts", image)
    return count_image(ids, mask, num_classes, stated)


def _stated(row: dict[str, Any], mask: np.ndarray, num_classes: int) -> StatedConfidence:
    """The confidence in a row. Raises ``ValueError`` if its mask has a class that is not listed."""
    classes = np.full(num_classes, np.nan)
    for c in row["classes"]:
        classes[c["class_id"]] = c["confidence"]
    if np.isnan(classes[np.unique(mask)]).any():
        raise ValueError("it holds a class that its row does not count")
    return StatedConfidence(mask, row["confidence"], classes)
