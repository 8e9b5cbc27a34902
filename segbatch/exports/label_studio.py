"""Export to Label Studio: tasks with predictions of its brush tool, and the labeling configuration."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from segbatch.codecs import rle
from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.xml_names import legal, quoted

# Predictions with other names than the configuration's do not appear, and nothing says why.
_FROM, _TO = "tag", "image"
# 11 to 14 kB of JSON per mask; DATA_UPLOAD_MAX_MEMORY_SIZE bounds an upload.
_TASKS_PER_FILE = 500
_LOCAL_FILES = "/data/local-files/?d="
_README = """\
# Masks of segbatch for Label Studio

1. Start the server with access to this folder:

       LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true \\
       LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=$PWD label-studio start

2. Create a project. Settings, Labeling Interface, Code: paste config.xml.
3. Settings, Cloud Storage: add a source storage of the type Local Files with the absolute path of images/.
   It gives permission to show the photographs; do not synchronize it.
4. Import each tasks-*.json. The masks are predictions: open a task, and choose the prediction to correct it.

Steps 1 and 3 are for tasks whose image begins with /data/local-files/.
"""


class LabelStudioFormat:
    """``tasks-00000.json`` and so on, of 500 tasks each, ``config.xml`` and ``README.md``.

    A result is one class of an image, except the background. The name of the network is the ``model_version``, its
    confidence the ``score``.
    """

    name = "label-studio"
    max_classes = 65_535
    default_images: Images = "copy"
    needs_images = False
    image_folder: str | None = "images"
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = True

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``. A line of the fragment is a task."""
        with part.fragment() as f:
            for image in images:
                f.write(json.dumps(_task(image, context), separators=(",", ":")).encode() + b"\n")

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        lines = folder.lines()
        for i in range(max(1, -(-context.total // _TASKS_PER_FILE))):
            tasks = itertools.islice(lines, _TASKS_PER_FILE)
            folder.write(f"tasks-{i:05d}.json", b"[" + b",\n".join(tasks) + b"]\n")
        folder.write("config.xml", labeling_config(context))
        folder.write("README.md", _README.encode())

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return (
            "Label Studio: config.xml as the labeling interface of a project, then import tasks-*.json; see README.md"
        )


def labeling_config(context: ExportContext) -> bytes:
    """Return the labeling interface of a project: an image, and a brush for each class."""
    labels = [
        f'    <Label value={quoted(name)} background="#{r:02x}{g:02x}{b:02x}"/>'
        for i, (name, (r, g, b)) in enumerate(zip(context.labels.names, context.labels.colors, strict=True))
        if i != context.background
    ]
    lines = [
        "<View>",
        f'  <Image name="{_TO}" value="$image" zoom="true"/>',
        f'  <BrushLabels name="{_FROM}" toName="{_TO}">',
        *labels,
        "  </BrushLabels>",
        "</View>",
    ]
    return "\n".join([*lines, ""]).encode()


def image_url(image: ExportedImage, context: ExportContext) -> str:
    """Return where the server finds a photograph: below ``image_root``, or among its local files."""
    root = context.image_root or _LOCAL_FILES
    if not root.endswith(("/", "=")):
        root += "/"
    # The server parses a URL; the key of an object it takes as it is.
    is_url = root.startswith(("http://", "https://", "/"))
    return root + (quote(image.file_name) if is_url else image.file_name)


def _task(image: ExportedImage, context: ExportContext) -> dict[str, Any]:
    prediction: dict[str, Any] = {"model_version": context.model or "segbatch"}
    if image.confidence is not None:
        prediction["score"] = round(image.confidence, 6)
    prediction["result"] = list(_results(image, context))
    data = {"image": image_url(image, context), "image_id": image.image_id}
    return {"data": data, "predictions": [prediction]}


def _results(image: ExportedImage, context: ExportContext) -> Iterator[dict[str, Any]]:
    height, width = image.mask.shape
    for count in image.classes:
        if count.class_id == context.background:
            continue
        yield {
            "type": "brushlabels",
            "from_name": _FROM,
            "to_name": _TO,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": round(count.confidence, 6),
            "value": {
                "format": "rle",
                "rle": list(rle.brush(image.mask == count.class_id)),
                "brushlabels": [legal(context.labels.names[count.class_id])],
            },
        }
