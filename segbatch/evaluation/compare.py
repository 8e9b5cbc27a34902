"""The work of one evaluation task: the rows of some result files held against their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.codecs import mask_png as png
from segbatch.errors import SpecError
from segbatch.evaluation.bootstrap import BootstrapAccumulator, Counts, Stated, count_image
from segbatch.evaluation.class_map import ClassMap, UnknownValues
from segbatch.evaluation.label_images import LabelFile, LabelReader
from segbatch.output.result_file import ResultFile
from segbatch.storage.store import Store

_ROWS = 32
MAX_EXAMPLES = 5


@dataclass
class Finding:
    """What was met ``times`` times, and the first few examples in order of their names."""

    times: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, times: int, examples: Iterable[str]) -> None:
        self.times += times
        self.examples = sorted([*self.examples, *examples])[:MAX_EXAMPLES]


@dataclass
class Part:
    """The results of some result files. ``compared`` int32 (L,): how many rows were compared with each label."""

    tally: BootstrapAccumulator
    compared: np.ndarray
    findings: dict[str, Finding] = field(default_factory=dict)
    unknown: UnknownValues = field(default_factory=UnknownValues)

    @staticmethod
    def empty(tally: BootstrapAccumulator, labels: int) -> Part:
        return Part(tally, np.zeros(labels, np.int32))

    def found(self, kind: str, example: str, times: int = 1) -> None:
        self.findings.setdefault(kind, Finding()).add(times, [example])

    def __iadd__(self, other: Part) -> Part:
        self.tally += other.tally
        self.compared += other.compared
        for kind, finding in other.findings.items():
            self.findings.setdefault(kind, Finding()).add(finding.times, finding.examples)
        self.unknown.merge(other.unknown)
        return self


@dataclass(frozen=True)
class Truth:
    """What all tasks compare with. ``places``: of each image its label's in ``labels``; -1 for one that is a label."""

    labels: Sequence[LabelFile]
    places: Mapping[str, int]
    class_map: ClassMap
    reader: LabelReader
    resamples: int
    seed: int

    def part(self) -> Part:
        """No rows yet."""
        return Part.empty(BootstrapAccumulator(len(self.class_map.names), self.resamples, self.seed), len(self.labels))


def compare_files(store: Store, files: list[ResultFile], truth: Truth) -> Part:
    """What a task runs: every row of some result files."""
    part = truth.part()
    for file in files:
        for batch in file.read(store, ["image_id", "mask", "classes", "confidence", "error"]).to_batches(_ROWS):
            places: list[int] = []
            counts: list[Counts] = []
            for row in batch.to_pylist():
                place = truth.places.get(row["image_id"])
                found = _count(row, place, truth, part)
                if place is not None and isinstance(found, Counts):
                    places.append(place)
                    counts.append(found)
                elif not isinstance(found, Counts):
                    part.found(*found)
            # Draws of the bootstrap follow from the label's name: the same for each output.
            part.tally.add([os.path.splitext(truth.labels[place].name)[0] for place in places], counts)
            np.add.at(part.compared, places, 1)
    return part


def _count(row: dict[str, Any], place: int | None, truth: Truth, part: Part) -> Counts | tuple[str, str]:
    """What is counted of one row, or (kind, example) of why nothing is; unknown label values go to ``part``."""
    image, num_classes = row["image_id"], len(truth.class_map.names)
    if row["error"] is not None:
        return "error rows", f"{image}: {row['error']['stage']}/{row['error']['type']}"
    if place is None:
        return "images without a label", image
    if place < 0:
        return "images that are labels", image
    try:
        written = png.decode(row["mask"])
        mask = truth.class_map.mask(written)
        stated = _stated(row, written, num_classes)
    except (OSError, ValueError, TypeError) as e:
        return "masks that cannot be read", f"{image}: {e}"
    try:
        label = truth.reader.read(truth.labels[place].uri).values
    except SpecError as e:
        return "labels that cannot be read", str(e).removeprefix("labels: ")
    if label.shape != mask.shape:
        sizes = f"label {label.shape[0]}x{label.shape[1]}, mask {mask.shape[0]}x{mask.shape[1]}"
        return "labels of another size than the image", f"{image}: {sizes} (height x width)"
    ids, unknown = truth.class_map.truth(label)
    for value, pixels in unknown.items():
        part.unknown.add(value, pixels, image)
    if (ids < 0).all():
        return "labels without a pixel that counts", image
    return count_image(ids, mask, num_classes, stated)


def _stated(row: dict[str, Any], mask: np.ndarray, num_classes: int) -> Stated:
    """The confidence in a row. Raises ``ValueError`` if its mask holds a class that it does not count."""
    classes = np.full(num_classes, np.nan)
    for c in row["classes"]:
        classes[c["class_id"]] = c["confidence"]
    if np.isnan(classes[np.unique(mask)]).any():
        raise ValueError("it holds a class that its row does not count")
    return Stated(mask, row["confidence"], classes)
