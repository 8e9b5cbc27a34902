"""Photographs of an export: upright, with the extension of their format, copied or linked."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segbatch.codecs.decode import decode, orientation_of
from segbatch.codecs.header import image_format
from segbatch.errors import RecordFailure
from segbatch.storage.uri import split_uri

_EXTENSIONS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "BMP": ".bmp",
    "AVIF": ".avif",
    "HEIC": ".heic",
}
_QUALITY = 95


@dataclass(frozen=True)
class Photograph:
    """An encoded image whose pixels are stored upright.

    Attributes:
        data: Its bytes.
        extension: Of its format, with the dot.
        is_turned: Whether it was encoded again, because of the EXIF orientation of the original.
    """

    data: bytes
    extension: str
    is_turned: bool = False


def upright_photograph(data: bytes, max_pixels: int) -> Photograph:
    """Return an image as its mask lies on it: readers that ignore an orientation, and those that apply it, agree.

    The bytes are unchanged unless the original has an orientation. Then it is a JPEG (quality 95, full chroma), or a
    PNG for other formats.

    Raises:
        RecordFailure: The image must be encoded again, and cannot be decoded.
    """
    name = image_format(data)
    if name is None:
        raise RecordFailure("decode", "UnknownFormat", "the original is not an image now")
    if orientation_of(data) == 1:
        return Photograph(data, _EXTENSIONS[name])
    buffer = io.BytesIO()
    image = Image.fromarray(decode(data, max_pixels))
    if name == "JPEG":
        image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
        return Photograph(buffer.getvalue(), ".jpg", is_turned=True)
    image.save(buffer, "PNG")
    return Photograph(buffer.getvalue(), ".png", is_turned=True)


def local_file(source: str, data: bytes) -> Path | None:
    """Return the file of this machine that a row names as its source, if it holds ``data``."""
    protocol, path = split_uri(source)
    if protocol != "file" or not os.path.isfile(path) or os.path.getsize(path) != len(data):
        return None
    return Path(path).resolve() if Path(path).read_bytes() == data else None
