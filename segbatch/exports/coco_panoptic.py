"""Export as COCO panoptic: segment ids as colors of PNG files, described by a JSON file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from segbatch.exports.coco import coco_info, coco_paths, write_coco
from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder

_FOLDER = "annotations"


class CocoPanopticFormat:
    """``annotations/panoptic_SPLIT.json`` and ``annotations/panoptic_SPLIT/NAME.png``; all classes are stuff.

    The id of a segment, of its category, and class id plus 1 are the same: 0 is void, and a background is a class.
    """

    name = "coco-panoptic"
    max_classes = 65_534
    default_images: Images = "none"
    needs_images = False
    image_folder: str | None = "images"
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``. A line of the fragment is the image and its annotation, separated by a tab."""
        with part.fragment() as f:
            for image in images:
                part.write(f"{_path(context)}/{image.name}.png", _segments_png(image.mask, context.void))
                height, width = image.mask.shape
                entry = {"id": image.number, "file_name": image.file_name, "width": width, "height": height}
                f.write(f"{json.dumps(entry)}\t{json.dumps(_annotation(image))}\n".encode())

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        write_coco(
            folder, context, _path(context), {"info": coco_info(context), "categories": _categories(context)}, iter
        )

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        path = f"{context.target}/{coco_paths(context, _path(context))[0]}"
        return f'panopticapi.evaluation.pq_compute("{path}", PREDICTIONS, "{context.target}/{_path(context)}")'


def _path(context: ExportContext) -> str:
    return f"{_FOLDER}/panoptic_{context.split}"


def _categories(context: ExportContext) -> list[dict[str, Any]]:
    classes = zip(context.labels.names, context.labels.colors, strict=True)
    return [
        {"id": i + 1, "name": name, "supercategory": "", "isthing": 0, "color": list(color)}
        for i, (name, color) in enumerate(classes)
    ]


def _segments_png(mask: np.ndarray, void: int) -> bytes:
    """Encode segment ids as colors: id = R + 256 G + 65,536 B."""
    segments = np.where(mask == void, 0, mask.astype(np.int32) + 1)
    colors = np.stack([segments % 256, segments // 256, np.zeros_like(segments)], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colors, "RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _annotation(image: ExportedImage) -> dict[str, Any]:
    segments = [
        {
            "id": count.class_id + 1,
            "category_id": count.class_id + 1,
            "area": count.pixels,
            "bbox": _box(image.mask == count.class_id),
            "iscrowd": 0,
        }
        for count in image.classes
    ]
    return {"image_id": image.number, "file_name": f"{image.name}.png", "segments_info": segments}


def _box(region: np.ndarray) -> list[int]:
    """Return left, top, width and height of the pixels in a region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
