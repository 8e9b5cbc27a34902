"""One row of an output: a mask, or the error that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from segbatch.codecs import mask_png
from segbatch.codecs.overlay import overlay
from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.records import ClassCount, RecordError


@dataclass(frozen=True)
class MaskRow:
    """One row of an output: a mask, or the error that says why there is none.

    Attributes:
        image_id: Unique in the output; begins with the name of the shard.
        source: Name of the input file that holds the image.
        index: Position of the record in its shard.
        height: Height of image and mask in pixels, or None if it is not known.
        width: Width in pixels, or None.
        png: The mask as a palette PNG whose pixel values are class ids, or None.
        classes: Its classes, most pixels first.
        confidence: Mean over the pixels of the network's probability of their class, 0 to 1, or None.
        marginal: Mean over the pixels of the refiner's probability of their class, if the job keeps it.
        error: Stage, type and message, or None.
        labels: Names and colors of the output's classes.
    """

    image_id: str
    source: str
    index: int
    height: int | None
    width: int | None
    png: bytes | None = None
    classes: tuple[ClassCount, ...] = ()
    confidence: float | None = None
    marginal: float | None = None
    error: RecordError | None = None
    labels: LabelSet = field(default=LabelSet((), ()), compare=False, repr=False)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """Class ids, uint8 (H, W), or uint16 for more than 256 classes; None for an error row."""
        return None if self.png is None else mask_png.decode(self.png)

    def overlay(self, image: np.ndarray | Image.Image) -> Image.Image:
        """Return an image with the mask over it, in the colors of the classes.

        Args:
            image: The image of the row, upright: uint8 (H, W, 3), or an image of Pillow in any mode.

        Raises:
            SpecError: The row has no mask, or the image has another size than the mask.
        """
        if self.mask is None:
            raise SpecError(f"{self.image_id}: has no mask to draw: {self.error.message if self.error else 'an error'}")
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if pixels.shape != (*self.mask.shape, 3):
            expected = f"({self.mask.shape[0]}, {self.mask.shape[1]}, 3)"
            raise SpecError(f"{self.image_id}: got an image of shape {pixels.shape}, its mask needs {expected}")
        return overlay(pixels, self.mask, self.labels)

    @staticmethod
    def from_dict(row: Mapping[str, Any], labels: LabelSet) -> MaskRow:
        """Build a row from the columns of ``output.schema``; those that are left out have their defaults."""
        fields = {name: value for name, value in row.items() if name not in ("mask", "classes", "error")}
        classes = tuple(ClassCount(**count) for count in row.get("classes") or ())
        error = None if row["error"] is None else RecordError(**row["error"])
        return MaskRow(**fields, png=row.get("mask"), classes=classes, error=error, labels=labels)
