"""Encoded image bytes to RGB pixels, as a viewer would show them."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from segbatch.codecs.bmp import plain_bmp
from segbatch.codecs.containers import plain_gif, plain_heif, plain_webp
from segbatch.codecs.depth import integers_to_uint8
from segbatch.codecs.exif import upright
from segbatch.codecs.header import image_format, image_size
from segbatch.codecs.jpeg import jpeg_orientation, jpeg_pixels
from segbatch.codecs.png import plain_png, png_lacks_rows
from segbatch.codecs.tiff import deep_pixels, plain_tiff
from segbatch.contents import looks_like, recognized
from segbatch.errors import RecordFailure

__all__ = ["decode", "image_size", "orientation_of"]

# Readers are called by name, so that untrusted bytes cannot reach any of Pillow's forty others.
_READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "AVIF": AvifImageFile,
}
# Each returns (the parts that decoding needs, EXIF orientation), and raises RecordFailure if a part is missing.
_PLAIN: dict[str, Callable[[bytes], tuple[bytes, int]]] = {
    "PNG": plain_png,
    "WEBP": plain_webp,
    "TIFF": plain_tiff,
    "BMP": plain_bmp,
    "GIF": plain_gif,
    "AVIF": plain_heif,
    "HEIC": plain_heif,
}
_KNOWN = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC"
_UNSUPPORTED = re.compile(
    r"unknown (?:pixel )?mode|unknown data organi[sz]ation|not available|unsupported|cannot handle|"
    r"unrecognized|unknown raw mode|unknown (?:png|bmp) mode",
    re.IGNORECASE,
)
_TRUNCATED = re.compile(
    r"truncated|(?:unexpected|premature) end|end of (?:file|data)|not enough|buffer is not large", re.IGNORECASE
)


def decode(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode an image to pixels uint8 (H, W, 3) RGB, as viewers display it. Thread-safe.

    The same rules apply to JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF and, with the extra ``heif``, HEIC:

    - The first frame or page; of a camera's ``.mpo`` the first image; of an APNG the image of its IDAT chunks.
    - The EXIF orientation of JPEG, PNG and WebP, the tag of TIFF, and ``irot`` and ``imir`` of AVIF and HEIC are
      applied.
    - Transparency is blended over white, unless alpha is 0 everywhere: then it is ignored.
    - Palettes, gray, CMYK and CIELAB are converted to RGB; CMYK JPEGs are inverted, with or without Adobe's marker.
      Embedded profiles are not applied.
    - 16-bit and 32-bit samples keep their high byte. Float TIFFs are scaled from [0, 1] if no color is larger, from
      [0, 255] if none is larger, else from the range of their values; NaN is black.
    - An image with missing pixels is refused, as far as its coding shows that. Metadata (text, profiles, EXIF,
      comments, thumbnails) may be damaged, and is not decompressed.

    Args:
        data: The file's content.
        max_pixels: Larger images are refused before anything is allocated.

    Raises:
        RecordFailure: Of stage ``decode``: EmptyImage, ZeroPixels, UnknownFormat, UnsupportedImage (a variety of a
            known format), TruncatedImage, CorruptImage, DecompressionBomb, OutOfMemory.
    """
    name = _sniff(data)
    _check_size(image_size(data), max_pixels)
    try:
        with _warnings_suppressed():
            return upright(*_pixels(data, name, max_pixels))
    except RecordFailure:
        raise
    except MemoryError:
        size = image_size(data)
        shape = f"{size[0]} x {size[1]} pixels" if size else f"{len(data)} bytes"
        raise RecordFailure("decode", "OutOfMemory", f"not enough memory to decode {shape}") from None
    except Image.DecompressionBombError as e:
        raise RecordFailure(
            "decode", "DecompressionBomb", f"{e}: this is PIL.Image.MAX_IMAGE_PIXELS, below the option max_pixels"
        ) from None
    except _PILLOW_RAISES as e:
        raise _failure(name, e) from None


def orientation_of(data: bytes) -> int:
    """Return the orientation that ``decode`` applies, 1 to 8; 1 for what cannot be decoded."""
    name = image_format(data)
    try:
        if name == "JPEG":
            return jpeg_orientation(data)
        if name == "AVIF":
            return _avif_orientation(data)
        return 1 if name is None else _PLAIN[name](data)[1]
    except (RecordFailure, *_PILLOW_RAISES):
        return 1


def _avif_orientation(data: bytes) -> int:
    with _warnings_suppressed(), AvifImageFile(io.BytesIO(_PLAIN["AVIF"](data)[0])) as image:
        return int(image.getexif().get(0x0112, 1))


def _pixels(data: bytes, name: str, max_pixels: int) -> tuple[np.ndarray, int]:
    """Return pixels uint8 (H, W, 3) as stored, and their orientation."""
    if name == "JPEG":
        return jpeg_pixels(data)
    plain, orientation = _PLAIN[name](data)
    if name == "TIFF" and (deep := deep_pixels(plain)) is not None:
        return deep, orientation
    with _reader(name)(io.BytesIO(plain)) as image:
        _check_size((image.height, image.width), max_pixels)
        image.load()
        _check_size((image.height, image.width), max_pixels)
        if isinstance(image, PngImageFile) and _ends_in_zeros(image) and png_lacks_rows(plain):
            raise RecordFailure("decode", "TruncatedImage", "the PNG breaks off: its data ends before its rows")
        if name == "AVIF":  # Pillow gives irot and imir as an EXIF orientation, and does not apply them
            orientation = image.getexif().get(0x0112, 1)
        return _to_rgb(image, plain), orientation


def _reader(name: str) -> type[ImageFile]:
    if name != "HEIC":
        return _READERS[name]
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise RecordFailure(
            "decode", "UnsupportedImage", "a HEIC image, which the extra heif reads: pip install 'segbatch[heif]'"
        ) from None
    return HeifImageFile


# What Pillow's readers were observed to raise on damaged files; anything else is a defect of segbatch.
_PILLOW_RAISES = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    UnidentifiedImageError,
)


def _sniff(data: bytes) -> str:
    if not data:
        raise RecordFailure("decode", "EmptyImage", "the image is empty: 0 bytes")
    name = image_format(data)
    if name is None:
        other = recognized(data) or looks_like(data)
        begins = "" if recognized(data) else f": {len(data)} bytes that begin with {data[:60]!r}"
        raise RecordFailure(
            "decode",
            "UnknownFormat",
            f"no {_KNOWN}{f'; looks like {other}' if other else ''}{begins}",
        )
    return name


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    if size is None:
        return  # the reader reports what is wrong with the header
    height, width = size
    if height == 0 or width == 0:
        raise RecordFailure("decode", "ZeroPixels", f"the image has no pixels: {height} x {width}")
    if height * width > max_pixels:
        raise RecordFailure(
            "decode",
            "DecompressionBomb",
            f"{height} x {width} is {height * width:,} pixels, more than max_pixels = {max_pixels:,}; "
            "raise max_pixels if such images are meant",
        )


def _failure(name: str, error: Exception) -> RecordFailure:
    text = str(error) or type(error).__name__
    if _TRUNCATED.search(text) or isinstance(error, EOFError):
        return RecordFailure("decode", "TruncatedImage", f"the {name} breaks off: {text}")
    if _UNSUPPORTED.search(text):
        return RecordFailure("decode", "UnsupportedImage", f"a {name} of a variety that cannot be read: {text}")
    return RecordFailure("decode", "CorruptImage", f"the {name} cannot be decoded: {text}")


def _ends_in_zeros(image: PngImageFile) -> bool:
    """Whether the last rows may never have been filled; complete images with a black last row match, too."""
    return bool(image.info.get("interlace")) or not np.asarray(image)[-1].any()


def _to_rgb(image: ImageFile, data: bytes) -> np.ndarray:
    """Return the loaded image as uint8 (H, W, 3), before its orientation is applied."""
    mode = image.mode
    if mode.startswith("I"):
        gray = integers_to_uint8(np.asarray(image), bits=16, signed=False)  # a PNG; of TIFFs see deep_pixels
        return np.repeat(gray[:, :, None], 3, axis=2)
    if mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if mode == "LAB":
        to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return np.asarray(ImageCms.applyTransform(image, to_rgb))
    # The transparent color of a 16-bit PNG cannot be distinguished from its neighbors once it has 8 bits.
    deep = isinstance(image, PngImageFile) and data[24] == 16
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or ("transparency" in image.info and not deep):
        layer = image if mode == "RGBA" else image.convert("RGBA")
        pixels = np.asarray(layer)
        if not pixels[:, :, 3].any():  # unused alpha, as programs write it into BMPs
            return pixels[:, :, :3]
        white = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    return np.asarray(image.convert("RGB"))


class _InOurDecode(threading.local):
    """Used as the pattern of a warning filter: matches any text in threads that are decoding here."""

    active = False

    def match(self, text: str) -> bool:
        return self.active


_ours = _InOurDecode()
_filter = ("ignore", _ours, Warning, None, 0)
_filter_lock = threading.Lock()
_threads_within = 0


@contextmanager
def _warnings_suppressed() -> Iterator[None]:
    """Suppress warnings of this thread within the block, and those of no other thread.

    ``warnings.catch_warnings`` swaps the process-wide list, so that two threads that use it at once can leave
    it wrong for good. This adds one entry, which matches only while its own thread is in here, and is removed when the
    last thread leaves.
    """
    global _threads_within
    with _filter_lock:
        _threads_within += 1
        if warnings.filters[:1] != [_filter]:  # others may have been put before it, or the list replaced
            _remove_filter()
            warnings.filters.insert(0, _filter)  # type: ignore[attr-defined]
    _ours.active = True
    try:
        yield
    finally:
        _ours.active = False
        with _filter_lock:
            _threads_within -= 1
            if not _threads_within:
                _remove_filter()


def _remove_filter() -> None:
    if _filter in warnings.filters:
        warnings.filters.remove(_filter)  # type: ignore[attr-defined]
