"""Export as PNG files: one gray mask per image, whose values are class ids."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder

_COMPRESS_LEVEL = 6


class PngFormat:
    """``masks/NAME.png``, ``images/NAME.jpg`` and ``classes.csv``."""

    name = "png"
    max_classes = 65_535
    default_images: Images = "none"
    needs_images = False
    image_folder: str | None = "images"
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``."""
        for image in images:
            part.write(f"masks/{image.name}.png", gray_png(image.mask))

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        folder.write("classes.csv", class_table(context))

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return f'cv2.imread("{context.target}/masks/NAME.png", cv2.IMREAD_UNCHANGED)'


def gray_png(mask: np.ndarray) -> bytes:
    """Encode a mask (H, W) as a gray PNG, 8-bit or for uint16 16-bit.

    A palette PNG would be wrong in OpenCV: ``IMREAD_UNCHANGED`` gives colors, ``IMREAD_GRAYSCALE`` their brightness.
    """
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def class_table(context: ExportContext) -> bytes:
    """Return the classes as CSV: id, name, red, green, blue."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "name", "red", "green", "blue"))
    for i, (name, color) in enumerate(zip(context.labels.names, context.labels.colors, strict=True)):
        writer.writerow((i, name, *color))
    return text.getvalue().encode()
