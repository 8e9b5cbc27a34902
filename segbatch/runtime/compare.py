"""The work of one evaluation task: the rows of some result files held against their labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbatch.encodings import png
from segbatch.errors import SpecError
from segbatch.metrics.class_map import ClassMap, UnknownValues
from segbatch.metrics.tally import Counts, Stated, Tally, count
from segbatch.output.ledger import ResultFile
from segbatch.output.store import Store
from segbatch.sources.io import Files
from segbatch.sources.labels import read_label, stem

_ROWS = 32
MOST_EXAMPLES = 5


@dataclass
class Finding:
    """What was met ``times`` times, and the first few examples in order of their names."""

    times: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, times: int, examples: Iterable[str]) -> None:
        self.times += times
        self.examples = sorted([*self.examples, *examples])[:MOST_EXAMPLES]


@dataclass
class Part:
    """What some result files come to. Of each label, int32 (L,): the rows that are its own, and those compared."""

    tally: Tally
    rows: np.ndarray
    compared: np.ndarray
    findings: dict[str, Finding] = field(default_factory=dict)
    unknown: UnknownValues = field(default_factory=UnknownValues)

    @staticmethod
    def empty(tally: Tally, labels: int) -> Part:
        return Part(tally, np.zeros(labels, np.int32), np.zeros(labels, np.int32))

    def found(self, kind: str, example: str, times: int = 1) -> None:
        self.findings.setdefault(kind, Finding()).add(times, [example])

    def __iadd__(self, other: Part) -> Part:
        self.tally += other.tally
        self.rows += other.rows
        self.compared += other.compared
        for kind, finding in other.findings.items():
            self.findings.setdefault(kind, Finding()).add(finding.times, finding.examples)
        self.unknown.merge(other.unknown)
        return self


def compare(store: Store, files: list[ResultFile], shared: tuple[dict[str, str], ClassMap, Files, int, int]) -> Part:
    """What a task runs: every row of some result files."""
    pairs, class_map, label_files, resamples, seed = shared
    order = {name: i for i, name in enumerate(pairs)}
    part = Part.empty(Tally(len(class_map.names), resamples, seed), len(pairs))
    for file in files:
        for batch in file.read(store, ["image_id", "mask", "classes", "confidence", "error"]).to_batches(_ROWS):
            rows = batch.to_pylist()
            compared: list[str] = []
            counts: list[Counts] = []
            for row in rows:
                label = stem(row["image_id"])
                if label in order:
                    part.rows[order[label]] += 1
                found = _count(row, pairs.get(label), class_map, label_files, part)
                if isinstance(found, Counts):
                    compared.append(label)
                    counts.append(found)
                else:
                    part.found(*found)
            part.tally.add(compared, counts)
            np.add.at(part.compared, [order[label] for label in compared], 1)
    return part


def _count(
    row: dict[str, Any], uri: str | None, class_map: ClassMap, files: Files, part: Part
) -> Counts | tuple[str, str]:
    """What is counted of one row, or (kind, example) of why nothing is; unknown label values go to ``part``."""
    image = row["image_id"]
    if row["error"] is not None:
        return "error rows", f"{image}: {row['error']['stage']}/{row['error']['type']}"
    if uri is None:
        return "images without a label", image
    try:
        written = png.decode(row["mask"])
        mask = class_map.mask(written)
        stated = _stated(row, written, len(class_map.names))
    except (OSError, ValueError, TypeError) as e:
        return "masks that cannot be read", f"{image}: {e}"
    try:
        label = read_label(files, uri)
    except SpecError as e:
        return "labels that cannot be read", str(e).removeprefix("labels: ")
    if label.shape != mask.shape:
        sizes = f"label {label.shape[0]}x{label.shape[1]}, mask {mask.shape[0]}x{mask.shape[1]}"
        return "labels of another size than the image", f"{image}: {sizes} (height x width)"
    truth, unknown = class_map.truth(label)
    for value, pixels in unknown.items():
        part.unknown.add(value, pixels, image)
    if (truth < 0).all():
        return "labels without a pixel that counts", image
    return count(truth, mask, len(class_map.names), stated)


def _stated(row: dict[str, Any], mask: np.ndarray, num_classes: int) -> Stated:
    """The confidence in a row. Raises ``ValueError`` if its mask holds a class that it does not count."""
    classes = np.full(num_classes, np.nan)
    for c in row["classes"]:
        classes[c["class_id"]] = c["confidence"]
    if np.isnan(classes[np.unique(mask)]).any():
        raise ValueError("it holds a class that its row does not count")
    return Stated(mask, row["confidence"], classes)
