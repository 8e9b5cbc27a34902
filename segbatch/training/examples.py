"""Labelled images to learn from, by number: decoded as ``segbatch run`` does, labelled as for ``segbatch eval``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segbatch.addresses import join
from segbatch.errors import RecordFailure, SpecError
from segbatch.metrics.class_map import ClassMap
from segbatch.sources.decode import decode
from segbatch.sources.io import Files, shown_uri
from segbatch.sources.labels import list_labels, read_label, stem
from segbatch.sources.listing import list_input

logger = logging.getLogger(__name__)

_LARGEST_IMAGE = 512 * 2**20


class Examples(Protocol):
    """Images with labels, in a fixed order. Picklable, and read from several threads at once."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(image uint8 (H, W, 3) RGB, class ids int32 (H, W), negative where nothing counts).

        Raises ``RecordFailure`` for an image that cannot be read, ``SpecError`` for a label that is wrong.
        """
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Image and label files, paired by name. Unknown label values are said once each, and do not count."""

    pairs: Sequence[tuple[str, str]]
    classes: ClassMap
    files: Files
    max_pixels: int

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image_uri, label_uri = self.pairs[index]
        image = decode(self.files.read(image_uri, _LARGEST_IMAGE), self.max_pixels)
        return image, truth_of(read_label(self.files, label_uri), image, self.classes, shown_uri(label_uri))


def image_files(
    inputs: Sequence[str],
    labels: str,
    classes: ClassMap,
    files: Files,
    max_pixels: int,
    tell: Callable[[str], None] = lambda text: None,
) -> ImageFiles:
    """The images of folders, prefixes and globs that have a label of the same name, in order of their names.

    Says how many have none. Raises ``SpecError`` if no image has one, ``SourceError`` for what cannot be listed.
    """
    truths = list_labels(files, labels)
    images = [
        join(listed.root, e.name) for given in inputs for listed in list_input(files, given) for e in listed.entries
    ]
    pairs = sorted((uri, truths[stem(uri)]) for uri in images if stem(uri) in truths)
    if not pairs:
        raise SpecError(
            f"labels: none of the {len(images)} images of {', '.join(map(shown_uri, inputs))} has a label in "
            f"{shown_uri(labels)}; labels are paired by file name without extension, such as {next(iter(truths))!r}"
        )
    if len(pairs) < len(images):
        tell(f"{len(images) - len(pairs)} of {len(images)} images have no label in {shown_uri(labels)}: left out")
    return ImageFiles(pairs, classes, files, max_pixels)


def truth_of(label: np.ndarray, image: np.ndarray, classes: ClassMap, name: str) -> np.ndarray:
    """Label values (H, W) as class ids. Raises ``SpecError`` if the label is not of the image's size."""
    if label.shape != image.shape[:2]:
        raise SpecError(
            f"labels: {name} is {label.shape[0]} x {label.shape[1]}, its image is {image.shape[0]} x {image.shape[1]}; "
            "a label has the size of its image"
        )
    truth, unknown = classes.truth(label)
    if unknown:
        told = ", ".join(f"{value} ({pixels:,} pixels)" for value, pixels in list(unknown.items())[:5])
        logger.warning("labels: %s holds values that are no class: %s; they do not count", name, told)
    return truth


def load_or_void(examples: Examples, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, where an image that cannot be read is one grey pixel that does not count: it ends no training."""
    try:
        return examples.load(index)
    except RecordFailure as e:
        logger.warning("an image is left out: %s: %s", e.kind, e.message)
        return np.full((1, 1, 3), 128, np.uint8), np.full((1, 1), -1, np.int32)
