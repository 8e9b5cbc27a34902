"""Shards of bounded size, for formats that put many images into one file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from segbatch.exports.format import MAX_IMAGES_PER_FILE, ExportedImage
from segbatch.exports.png import gray_png


def shards(
    images: Iterator[ExportedImage], max_bytes: int
) -> Iterator[tuple[int, Iterator[tuple[ExportedImage, bytes]]]]:
    """Divide the images of a part into shards, in order; each has to be consumed before the next.

    Args:
        max_bytes: Of photographs and masks in a shard; one image may exceed it.

    Yields:
        The number of a shard, from 0, and its images, each with its mask as a gray PNG.
    """
    shard, count, size = 0, 0, 0

    def number(item: tuple[ExportedImage, bytes]) -> int:
        nonlocal shard, count, size
        added = len(item[0].image or b"") + len(item[1])
        if count and (count == MAX_IMAGES_PER_FILE or size + added > max_bytes):
            shard, count, size = shard + 1, 0, 0
        count, size = count + 1, size + added
        return shard

    return itertools.groupby(((image, gray_png(image.mask)) for image in images), number)
