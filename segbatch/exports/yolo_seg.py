"""Export for the tasks ``segment`` and ``semantic`` of Ultralytics: images, polygons, data.yaml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from segbatch.codecs.polygons import polygons
from segbatch.errors import SpecError
from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.yolo_semantic import data_yaml
from segbatch.packages import missing_package

# Where in a pixel its point is. Readers multiply and truncate: at the edge of the pixel, rounding moves a third of the
# points. Versions of Ultralytics before 8.4.190 drop polygons of a class whose boxes are equal: these differ.
_WITHIN_PIXEL = (0.5, 0.25, 0.75)


class YoloSegFormat:
    """``images/SPLIT/NAME.jpg``, ``labels/SPLIT/NAME.txt`` and ``data.yaml``.

    A line is a connected component of a class, except the background: Ultralytics appends a class of that name.
    Ignored pixels have no polygon and so become background, too.
    """

    name = "yolo-seg"
    max_classes = 65_535
    default_images: Images = "copy"
    needs_images = True
    image_folder: str | None = "images/{split}"
    reserved_folders: frozenset[str] = frozenset({"images"})
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""
        try:
            import cv2  # noqa: F401
        except ModuleNotFoundError as e:
            raise SpecError(missing_package(e, f"--to {self.name}")) from None

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``."""
        for image in images:
            part.write(f"labels/{context.split}/{image.name}.txt", "".join(_lines(image, context)).encode())

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        folder.write("data.yaml", data_yaml(context, context.labels.names[_first(context) :]))

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return f"yolo segment train data={context.target}/data.yaml model=yolo26n-seg.pt"


def _first(context: ExportContext) -> int:
    """Number of classes without polygons: 1 for a background."""
    return 0 if context.background is None else 1


def _lines(image: ExportedImage, context: ExportContext) -> Iterator[str]:
    height, width = image.mask.shape
    digits = len(str(max(height, width))) + 1
    for class_id in sorted(count.class_id for count in image.classes):
        if class_id == context.background:
            continue
        boxes: Counter[bytes] = Counter()
        for polygon in polygons(image.mask == class_id):
            box = np.concatenate([polygon.min(0), polygon.max(0)]).tobytes()
            points = (polygon + _WITHIN_PIXEL[boxes[box] % len(_WITHIN_PIXEL)]) / (width, height)
            boxes[box] += 1
            numbers = " ".join(f"{value:.{digits}f}" for value in np.ravel(points).tolist())
            yield f"{class_id - _first(context)} {numbers}\n"
