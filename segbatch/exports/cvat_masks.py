"""Export to CVAT: masks in the form "Segmentation mask 1.1", the layout of PASCAL VOC."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segbatch.codecs import mask_png
from segbatch.errors import SpecError
from segbatch.exports.cvat import task_labels
from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.labels import LabelSet, voc_color_map

_BACKGROUND, _BLACK = "background", (0, 0, 0)


class CvatMasksFormat:
    """``SegmentationClass/NAME.png`` in colors, ``labelmap.txt`` and ``ImageSets/Segmentation/default.txt``.

    The first label is ``background`` in black: the background class, and ignored pixels.
    """

    name = "cvat-masks"
    max_classes = 255
    default_images: Images = "copy"
    needs_images = False
    image_folder: str | None = "JPEGImages"
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""
        for i, name in enumerate(context.labels.names):
            if i != context.background and (":" in name or name.startswith("#") or name == _BACKGROUND):
                raise SpecError(
                    f"--to {self.name}: labelmap.txt cannot hold the class name {name!r}: one with a colon, with # "
                    f"first, or {_BACKGROUND}; rename the class by --class-map, or choose --to cvat"
                )

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``. A line of the fragment is a name."""
        labels = label_map(context)
        palette = labels.palette()
        values = np.zeros(256, np.uint8)  # ignored pixels are background
        values[: len(context.labels)] = np.arange(len(context.labels)) + (context.background is None)
        with part.fragment() as f:
            for image in images:
                data = mask_png.encode(values[image.mask], palette, len(labels))
                part.write(f"SegmentationClass/{image.name}.png", data)
                f.write(image.name.encode() + b"\n")

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        labels = label_map(context)
        lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(labels.names, labels.colors, strict=True)]
        folder.write("labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]).encode())
        folder.write("labels.json", task_labels(context))
        with folder.open("ImageSets/Segmentation/default.txt") as f:
            for line in folder.lines():
                f.write(line + b"\n")

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return (
            "CVAT: a task of JPEGImages/ with the labels of labels.json (Raw), then Upload annotations, "
            "Segmentation mask 1.1: a zip of labelmap.txt, ImageSets and SegmentationClass"
        )


def label_map(context: ExportContext) -> LabelSet:
    """Return the labels, background first, each with a color of its own: in CVAT, classes of one color merge.

    A class that is black, or has the color of another, gets the first free color of the VOC color map.
    """
    classes = list(zip(context.labels.names, context.labels.colors, strict=True))
    used = {_BLACK, *context.labels.colors}
    colors: dict[str, tuple[int, ...]] = {}
    free = (color for color in voc_color_map(256) if color not in used)
    for i, (name, color) in enumerate(classes):
        if i != context.background:
            colors[name] = next(free) if color == _BLACK or color in colors.values() else color
    return LabelSet.of([_BACKGROUND, *colors], [_BLACK, *colors.values()])
