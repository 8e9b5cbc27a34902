"""Export for the task ``semantic`` of Ultralytics: images, masks of class ids, data.yaml."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from segbatch.errors import SpecError
from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.png import gray_png


class YoloSemanticFormat:
    """``images/SPLIT/NAME.jpg``, ``masks/SPLIT/NAME.png`` and ``data.yaml``; 255 is ignored."""

    name = "yolo-semantic"
    max_classes = 255
    default_images: Images = "copy"
    needs_images = True
    image_folder: str | None = "images/{split}"
    reserved_folders: frozenset[str] = frozenset({"images"})
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""
        if len(context.labels) == 1:
            raise SpecError(
                f"--to {self.name}: {context.labels.names[0]!r} is the only class, and Ultralytics takes value 0 of a "
                "single class for background; keep a second class by --classes"
            )

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``."""
        for image in images:
            part.write(f"masks/{context.split}/{image.name}.png", gray_png(image.mask))

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        # Without masks_dir, Ultralytics may look for polygons instead.
        folder.write("data.yaml", data_yaml(context, context.labels.names, masks_dir="masks"))

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return f"yolo semantic train data={context.target}/data.yaml model=yolo26n-sem.pt"


def data_yaml(context: ExportContext, names: tuple[str, ...], **fields: str) -> bytes:
    """Return the description of a dataset. Paths are relative to the file; ``val``, which must exist, is the split."""
    images = f"images/{context.split}"
    content = {"train": images, "val": images, **fields, "names": dict(enumerate(names))}
    plain = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return f"# val has the same images as train: set it to a folder of others.\n{plain}".encode()
