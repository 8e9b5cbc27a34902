"""Export to FiftyOne: the layout of its ImageSegmentationDirectory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.png import gray_png

_README = """\
# Masks of segbatch for FiftyOne

```python
import fiftyone as fo

dataset = fo.Dataset.from_dir(dataset_dir=".", dataset_type=fo.types.ImageSegmentationDirectory)
dataset.default_mask_targets = {targets}
dataset.save()
```

{note}
"""
_SHIFTED = (
    "The value of a class is its id in the output plus 1: FiftyOne shows 0 as background; it is an ignored pixel here."
)
_UNCHANGED = "The value of a class is its id in the output; {void} is an ignored pixel."


class FiftyOneFormat:
    """``data/NAME.jpg``, ``labels/NAME.png`` and ``README.md`` with the lines that import them.

    FiftyOne takes 0 for background, whatever its name: without such a class, values are class ids plus 1, and 0 is an
    ignored pixel.
    """

    name = "fiftyone"
    max_classes = 65_535
    default_images: Images = "copy"
    needs_images = True
    image_folder: str | None = "data"
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``."""
        for image in images:
            mask = image.mask
            if context.background is None:
                mask = np.where(mask == context.void, 0, mask + 1).astype(mask.dtype)
            part.write(f"labels/{image.name}.png", gray_png(mask))

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        shift = 0 if context.background == 0 else 1
        targets = {i + shift: name for i, name in enumerate(context.labels.names) if i != context.background}
        note = _SHIFTED if shift else _UNCHANGED.format(void=context.void)
        folder.write("README.md", _README.format(targets=repr(targets), note=note).encode())

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        folder = f'dataset_dir="{context.target}", dataset_type=fo.types.ImageSegmentationDirectory'
        return f"fo.Dataset.from_dir({folder}); see README.md"
