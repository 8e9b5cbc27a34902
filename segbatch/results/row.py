"""One row of an output: a mask, or the error that says why there is none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from segbatch.codecs import mask_png
from segbatch.codecs.overlay import overlay
from segbatch.errors import SourceError, SpecError
from segbatch.labels import LabelSet
from segbatch.records import ClassCount, RecordError
from segbatch.results.image_reader import ImageReader

NO_LABELS = LabelSet((), ())
_NOTEBOOK_SIDE = 640


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
        images: Reads the image from the inputs of the run; None for a row that was read without them.
    """

    image_id: str
    source: str
    index: int
    height: int | None
    width: int | None
    png: bytes | None = field(default=None, repr=False)
    classes: tuple[ClassCount, ...] = ()
    confidence: float | None = None
    marginal: float | None = None
    error: RecordError | None = None
    labels: LabelSet = field(default=NO_LABELS, compare=False, repr=False)
    images: ImageReader | None = field(default=None, compare=False, repr=False)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """Class ids, uint8 (H, W), or uint16 for more than 256 classes; None for an error row."""
        return None if self.png is None else mask_png.decode(self.png)

    def overlay(self, image: np.ndarray | Image.Image | None = None) -> Image.Image:
        """Return the image with the mask over it, in the colors of the classes.

        Args:
            image: The image of the row, upright: uint8 (H, W, 3), or an image of Pillow in any mode. Unless given, it
                is read from the inputs of the run.

        Raises:
            SpecError: The row has no mask, or the image has another size than the mask.
            SourceError: The inputs of the run no longer have the image; the message states why.
        """
        mask = self._need_mask()
        if image is None:
            image = self._read_image()
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if pixels.shape != (*mask.shape, 3):
            expected = f"({mask.shape[0]}, {mask.shape[1]}, 3)"
            raise SpecError(f"{self.image_id}: got an image of shape {pixels.shape}, its mask needs {expected}")
        return overlay(pixels, mask, self.labels)

    def mask_image(self) -> Image.Image:
        """Return the mask in the colors of the classes, RGB. Raises ``SpecError`` for an error row."""
        return Image.fromarray(np.asarray(self.labels.colors, np.uint8)[self._need_mask()])

    def _repr_png_(self) -> bytes | None:
        """Return what a notebook shows: the overlay, or the mask if the image is not available."""
        if self.mask is None:
            return None
        try:
            drawn = self.overlay()
        except SourceError:
            drawn = self.mask_image()
        drawn.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        out = io.BytesIO()
        drawn.save(out, "PNG")
        return out.getvalue()

    def _need_mask(self) -> np.ndarray:
        if self.mask is None:
            raise SpecError(f"{self.image_id}: has no mask to draw: {self.error.message if self.error else 'an error'}")
        return self.mask

    def _read_image(self) -> np.ndarray:
        if self.images is None:
            raise SourceError(f"{self.image_id}: was read without the inputs of its run; pass the image")
        return self.images.pixels(self)

    @staticmethod
    def from_dict(row: Mapping[str, Any], labels: LabelSet = NO_LABELS, images: ImageReader | None = None) -> MaskRow:
        """Build a row from the columns of ``output.schema``; those that are left out have their defaults."""
        fields = {name: value for name, value in row.items() if name not in ("mask", "classes", "error")}
        classes = tuple(ClassCount(**count) for count in row.get("classes") or ())
        error = None if row["error"] is None else RecordError(**row["error"])
        return MaskRow(**fields, png=row.get("mask"), classes=classes, error=error, labels=labels, images=images)
