"""Export to CVAT: masks in the form "CVAT for images 1.1"."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from segbatch.codecs import rle
from segbatch.exports.format import MAX_IMAGES_PER_FILE, ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.xml_names import element_text, legal, quoted

_FOLDER = "images"


class CvatFormat:
    """``annotations.xml``, or ``annotations-00000.xml`` and so on for more than 10,000 images; ``labels.json``.

    A mask is one class of an image, except the background, which is no label in CVAT. Frames are matched by name:
    that of the photograph below ``images/``, or without it the image id.
    """

    name = "cvat"
    max_classes = 65_535
    default_images: Images = "copy"
    needs_images = False
    image_folder: str | None = _FOLDER
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``. A line of the fragment is an element ``image``."""
        with part.fragment() as f:
            for image in images:
                f.write(_element(image, context).encode() + b"\n")

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        lines = folder.lines()
        for name in _paths(context):
            with folder.open(name) as f:
                f.write(_head(context).encode())
                for line in itertools.islice(lines, MAX_IMAGES_PER_FILE):
                    f.write(line + b"\n")
                f.write(b"</annotations>\n")
        folder.write("labels.json", task_labels(context))

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return (
            "CVAT: a task of images/ with the labels of labels.json (Raw), then Upload annotations, CVAT 1.1: "
            f"{_paths(context)[0]}"
        )


def task_labels(context: ExportContext) -> bytes:
    """Return the labels of a task, as the tab Raw of CVAT's constructor takes them."""
    labels = [
        {"name": legal(name), "color": _hex(color), "type": "mask", "attributes": []}
        for name, color in _foreground(context)
    ]
    return json.dumps(labels, indent=1, ensure_ascii=False).encode() + b"\n"


def _foreground(context: ExportContext) -> list[tuple[str, tuple[int, int, int]]]:
    classes = zip(context.labels.names, context.labels.colors, strict=True)
    return [label for i, label in enumerate(classes) if i != context.background]


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _paths(context: ExportContext) -> list[str]:
    count = max(1, -(-context.total // MAX_IMAGES_PER_FILE))
    return ["annotations.xml"] if count == 1 else [f"annotations-{i:05d}.xml" for i in range(count)]


def _head(context: ExportContext) -> str:
    labels = [
        f"<label><name>{element_text(name)}</name><color>{_hex(color)}</color><type>mask</type><attributes/></label>"
        for name, color in _foreground(context)
    ]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>',
            "<annotations><version>1.1</version>",
            f"<meta><task><name>segbatch</name><size>{context.total}</size><mode>annotation</mode><labels>",
            *labels,
            "</labels></task></meta>",
            "",
        ]
    )


def _element(image: ExportedImage, context: ExportContext) -> str:
    height, width = image.mask.shape
    name = quoted(image.file_name.removeprefix(f"{_FOLDER}/") if image.image_file else image.image_id)
    masks = [_mask(image, count.class_id, context) for count in image.classes if count.class_id != context.background]
    return f'<image id="{image.number - 1}" name={name} width="{width}" height="{height}">{"".join(masks)}</image>'


def _mask(image: ExportedImage, class_id: int, context: ExportContext) -> str:
    box = rle.box_runs(image.mask == class_id)
    return (
        f'<mask label={quoted(context.labels.names[class_id])} source="auto" occluded="0" '
        f'rle="{", ".join(map(str, box.counts.tolist()))}" left="{box.left}" top="{box.top}" '
        f'width="{box.width}" height="{box.height}" z_order="0"></mask>'
    )
