"""Labeled images by index, decoded as ``segbatch run`` does and labeled as for ``segbatch eval``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segbatch.codecs.decode import decode
from segbatch.errors import RecordFailure, SpecError
from segbatch.evaluation.class_map import ClassMap
from segbatch.evaluation.label_images import Label, LabelReader, is_image, list_labels
from segbatch.evaluation.pairing import ImageName, Suffix, pair, refusal
from segbatch.storage.files import Files
from segbatch.storage.listing import list_input
from segbatch.storage.uri import join
from segbatch.text import counted, escape_invalid_utf8, redact

logger = logging.getLogger(__name__)

_MAX_IMAGE_BYTES = 512 * 2**20


class Examples(Protocol):
    """Images with labels, in a fixed order. Picklable, and thread-safe."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image uint8 (H, W, 3) RGB, and class ids int32 (H, W), negative where ignored.

        Raises:
            RecordFailure: The image cannot be read.
            SpecError: The label cannot be read, or has another size.
        """
        ...

    def label(self, index: int) -> tuple[str, Label]:
        """Return the name of a label, and the label as it is read. Raises ``SpecError``."""
        ...

    def image(self, index: int) -> np.ndarray:
        """Return the image uint8 (H, W, 3) RGB. Raises ``RecordFailure``."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Image and label files, paired by name. Unknown label values are logged, and ignored."""

    pairs: Sequence[tuple[str, str]]
    classes: ClassMap
    files: Files
    reader: LabelReader
    max_pixels: int

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self.image(index)
        name, label = self.label(index)
        return image, truth_of(label.values, image, self.classes, name)

    def label(self, index: int) -> tuple[str, Label]:
        uri = self.pairs[index][1]
        return escape_invalid_utf8(redact(uri)), self.reader.read(uri)

    def image(self, index: int) -> np.ndarray:
        return decode(self.files.read(self.pairs[index][0], _MAX_IMAGE_BYTES), self.max_pixels)


def image_files(
    inputs: Sequence[str], labels: str, suffix: str, classes: ClassMap, reader: LabelReader, max_pixels: int
) -> tuple[ImageFiles, list[str]]:
    """Return the images of folders, prefixes and globs that have a label, in order of their URIs.

    Args:
        suffix: See ``labels.LabelOptions``.

    Returns:
        The examples, and messages about images and labels without a partner.

    Raises:
        SpecError: No image has a label, or names do not tell which image a label belongs to; see ``pairing.pair``.
        SourceError: A folder cannot be listed.
    """
    files = reader.files
    truths = list_labels(files, labels)
    images = [
        ImageName(e.name, join(listed.root, e.name))
        for given in inputs
        for listed in list_input(files, given)
        for e in listed.entries
        if is_image(e.name)
    ]
    pairing = pair(images, truths, Suffix.of(suffix))
    if not pairing.labels:
        raise SpecError(refusal(images, truths, Suffix.of(suffix), labels, ", ".join(map(redact, inputs))))
    pairs = sorted((images[i].uri, label.uri) for i, label in pairing.labels.items())
    return ImageFiles(pairs, classes, files, reader, max_pixels), pairing.notes()


def truth_of(label: np.ndarray, image: np.ndarray, classes: ClassMap, name: str) -> np.ndarray:
    """Return label values (H, W) as class ids.

    Raises:
        SpecError: The label has another size than its image.
    """
    if label.shape != image.shape[:2]:
        raise SpecError(
            f"labels: {name} is {label.shape[0]} x {label.shape[1]}, its image is {image.shape[0]} x {image.shape[1]}; "
            "a label has the size of its image"
        )
    truth, unknown = classes.truth(label)
    if unknown:
        shown = ", ".join(f"{value} ({counted(pixels, 'pixel')})" for value, pixels in list(unknown.items())[:5])
        logger.warning("labels: %s holds values that are not a class: %s; they are ignored", name, shown)
    return truth


def load_or_placeholder(examples: Examples, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an example; for an image that cannot be read, one ignored gray pixel.

    A warning is logged then.
    """
    try:
        return examples.load(index)
    except RecordFailure as e:
        logger.warning("an image is left out: %s: %s", e.type, e.message)
        return np.full((1, 1, 3), 128, np.uint8), np.full((1, 1), -1, np.int32)
