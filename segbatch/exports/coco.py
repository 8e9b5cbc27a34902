"""Export as COCO instances: run-length masks in one JSON file for every 10,000 images."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from pycocotools import mask as coco_mask

from segbatch.codecs.components import components
from segbatch.exports.format import MAX_IMAGES_PER_FILE, ExportContext, ExportedImage, ExportFolder, Images, PartFolder

_FOLDER = "annotations"


class CocoRleFormat:
    """``annotations/instances_SPLIT.json``, with one annotation per class and image, or per connected component.

    The background has no annotations. Category ids are class ids; where a class other than the background has id 0,
    they are class ids plus 1, since COCO's tools take 0 for no category.
    """

    name = "coco-rle"
    max_classes = 65_535
    default_images: Images = "none"
    needs_images = False
    image_folder: str | None = "images"
    reserved_folders: frozenset[str] = frozenset()
    has_instances = True
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``. A line of the fragment is the image and its annotations, separated by tabs."""
        with part.fragment() as f:
            for image in images:
                height, width = image.mask.shape
                entry = {"id": image.number, "file_name": image.file_name, "width": width, "height": height}
                fields = [entry, *_annotations(image, context)]
                f.write("\t".join(map(_json, fields)).encode() + b"\n")

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``. Annotations get their ids: from 1, since COCOeval takes 0 for unmatched."""
        head = {"info": coco_info(context), "licenses": [], "categories": categories(context)}
        annotation_ids = iter(range(1, 2**62))

        def annotations(lines: Iterator[bytes]) -> Iterator[bytes]:
            for line in lines:
                for annotation in line.split(b"\t") if line else ():
                    yield b'{"id":%d,%s' % (next(annotation_ids), annotation[1:])

        write_coco(folder, context, f"{_FOLDER}/instances_{context.split}", head, annotations)

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        path = coco_paths(context, f"{_FOLDER}/instances_{context.split}")[0]
        return f'pycocotools.coco.COCO("{context.target}/{path}")'


def write_coco(
    folder: ExportFolder,
    context: ExportContext,
    path: str,
    head: dict[str, Any],
    annotations: Callable[[Iterator[bytes]], Iterator[bytes]],
) -> None:
    """Write COCO's JSON files from the fragments, a bounded number of images in each.

    Args:
        path: Of the files, without number and extension.
        head: Everything but ``images`` and ``annotations``.
        annotations: Returns the annotations of lines of the fragments, from which the image is removed, as JSON.
    """
    lines = folder.lines()
    for name in coco_paths(context, path):
        with folder.open(name) as f, tempfile.TemporaryFile() as rest:
            f.write(_json(head)[:-1].encode() + b',"images":[')
            _write_joined(f.write, _images(itertools.islice(lines, MAX_IMAGES_PER_FILE), rest))
            rest.seek(0)
            f.write(b'],"annotations":[')
            _write_joined(f.write, annotations(line.removesuffix(b"\n") for line in rest))
            f.write(b"]}\n")


def _images(lines: Iterator[bytes], rest: IO[bytes]) -> Iterator[bytes]:
    """Yield the images of lines, and set their annotations aside: one pass reads all fragments."""
    for line in lines:
        image, _, annotations = line.partition(b"\t")
        rest.write(annotations + b"\n")
        yield image


def coco_paths(context: ExportContext, path: str) -> list[str]:
    """Return the paths of the JSON files: one, or several with numbers."""
    count = max(1, -(-context.total // MAX_IMAGES_PER_FILE))
    return [f"{path}.json"] if count == 1 else [f"{path}-{i:05d}-of-{count:05d}.json" for i in range(count)]


def coco_info(context: ExportContext) -> dict[str, Any]:
    """Return COCO's ``info``."""
    return {"description": f"masks of {context.model}, exported by segbatch", "url": context.source, "version": "1.0"}


def category_id(class_id: int, context: ExportContext) -> int:
    """Return the category of a class: its id, or that plus 1 if class 0 is not the background."""
    return class_id if context.background == 0 else class_id + 1


def categories(context: ExportContext) -> list[dict[str, Any]]:
    """Return COCO's categories, without the background."""
    return [
        {"id": category_id(i, context), "name": name, "supercategory": ""}
        for i, name in enumerate(context.labels.names)
        if i != context.background
    ]


def _annotations(image: ExportedImage, context: ExportContext) -> Iterator[dict[str, Any]]:
    confidences = {count.class_id: count.confidence for count in image.classes}
    if context.instances:
        region, areas = components(image.mask)
        _, first = np.unique(region, return_index=True)
        regions = [(region, i, int(image.mask.flat[at])) for i, at in zip(range(len(areas)), first, strict=True)]
    else:
        regions = [(image.mask, class_id, class_id) for class_id in sorted(confidences)]
    for values, value, class_id in regions:
        if class_id in confidences and class_id != context.background:
            yield _annotation(image.number, values == value, category_id(class_id, context), confidences[class_id])


def _annotation(image_id: int, region: np.ndarray, category: int, score: float) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(region))
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")},
        "area": int(coco_mask.area(rle)),
        "bbox": [float(v) for v in coco_mask.toBbox(rle)],
        "iscrowd": 0,
        "score": round(score, 6),
    }


def _write_joined(write: Callable[[bytes], object], items: Iterator[bytes]) -> None:
    for i, item in enumerate(items):
        write(b",\n" + item if i else b"\n" + item)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
