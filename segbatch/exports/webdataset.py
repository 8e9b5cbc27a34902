"""Export as WebDataset: tar files with a photograph, a mask and a JSON file for each key."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

from segbatch.exports.format import ExportContext, ExportedImage, ExportFolder, Images, PartFolder
from segbatch.exports.png import class_table
from segbatch.exports.shards import shards

_MAX_SHARD_BYTES = 10**9


class WebDatasetFormat:
    """``SPLIT-PART-SHARD.tar`` with ``KEY.jpg``, ``KEY.mask.png`` and ``KEY.json``, and ``classes.csv``."""

    name = "webdataset"
    max_classes = 65_535
    default_images: Images = "copy"
    needs_images = False
    image_folder: str | None = None
    reserved_folders: frozenset[str] = frozenset()
    has_instances = False
    has_image_urls = False

    def check(self, context: ExportContext) -> None:
        """See ``Format.check``."""

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """See ``Format.write_part``."""
        for shard, samples in shards(images, _MAX_SHARD_BYTES):
            path = f"{context.split}-{part.name}-{shard:04d}.tar"
            # GNU's headers hold names of any length; the same bytes in every attempt.
            with part.open(path) as f, tarfile.open(fileobj=f, mode="w|", format=tarfile.GNU_FORMAT) as tar:
                for image, mask in samples:
                    for extension, data in _members(image, mask, context):
                        member = tarfile.TarInfo(f"{_key(image.name)}.{extension}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """See ``Format.finish``."""
        folder.write("classes.csv", class_table(context))

    def usage(self, context: ExportContext) -> str:
        """See ``Format.usage``."""
        return f'webdataset.WebDataset(sorted(glob.glob("{context.target}/{context.split}-*.tar")), shardshuffle=False)'


def _key(name: str) -> str:
    """Return the key of a sample: readers divide the last segment at its first dot."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.replace('.', '%2E')}"


def _members(image: ExportedImage, mask: bytes, context: ExportContext) -> Iterator[tuple[str, bytes]]:
    if image.image is not None and image.image_file is not None:
        yield image.image_file.rpartition(".")[2], image.image
    yield "mask.png", mask
    height, width = image.mask.shape
    classes = {context.labels.names[count.class_id]: count.pixels for count in image.classes}
    plain = {
        "image_id": image.image_id,
        "height": height,
        "width": width,
        "confidence": image.confidence,
        "pixels": classes,
    }
    yield "json", json.dumps(plain).encode()
