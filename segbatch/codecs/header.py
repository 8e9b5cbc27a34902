"""Format and size of an encoded image by its first bytes, without decoding it.

Sizes are read here and not by Pillow, so that a limit on them holds whatever Pillow's own limits are set to, before
anything is allocated (Pillow 13.0 reserves 1.3 GB when it opens a WebP of 170 bytes that declares 13000 x 13000
pixels), and where metadata is damaged that the pixels do not need.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from segbatch.codecs.bmp import bmp_size
from segbatch.codecs.containers import gif_size, heif_format, heif_size, webp_size
from segbatch.codecs.jpeg import jpeg_size
from segbatch.codecs.png import png_size
from segbatch.codecs.tiff import tiff_size

_MAGIC = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II\x2a\0|MM\0\x2a|II\x2b\0|MM\0\x2b")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
)


def image_format(data: bytes) -> str | None:
    """Return ``JPEG PNG WEBP TIFF GIF BMP AVIF HEIC`` by the first bytes, or None."""
    return next((name for name, magic in _MAGIC if magic.match(data)), None) or heif_format(data)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of the header, before the EXIF orientation is applied; None if it is not there."""
    name = image_format(data)
    try:
        return None if name is None else _SIZES[name](data)
    except (struct.error, IndexError):
        return None


_SIZES: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "JPEG": jpeg_size,
    "PNG": png_size,
    "WEBP": webp_size,
    "TIFF": tiff_size,
    "GIF": gif_size,
    "BMP": bmp_size,
    "AVIF": heif_size,
    "HEIC": heif_size,
}
