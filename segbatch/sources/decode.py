"""Encoded image bytes to RGB pixels, as a viewer would show them."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from segbatch.contents import looks_like, recognized
from segbatch.errors import RecordFailure
from segbatch.sources.exif import upright
from segbatch.sources.header import fault, image_format, image_size, png_lacks_rows
from segbatch.sources.jpeg import jpeg_pixels

__all__ = ["decode", "image_size"]

# The readers are called by name: none of Pillow's forty others can be reached by the bytes of a stranger.
_READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_ORIENTATION = 0x0112
_WHITE_IS_ZERO = 0
_UNSUPPORTED = re.compile(
    r"unknown (?:pixel )?mode|unknown data organi[sz]ation|not available|unsupported|cannot handle|"
    r"unrecognized|unknown raw mode|unknown (?:png|bmp) mode",
    re.IGNORECASE,
)
_TRUNCATED = re.compile(
    r"truncated|(?:unexpected|premature) end|end of (?:file|data)|not enough|buffer is not large", re.IGNORECASE
)


def decode(data: bytes, max_pixels: int) -> np.ndarray:
    """Pixels uint8 (H, W, 3) RGB of a JPEG, PNG, WebP, TIFF, BMP or GIF (its first frame).

    As viewers do: turned as EXIF says; transparency over white; palettes, grey, CMYK and CIELAB converted
    (embedded profiles are not applied); 16-bit samples keep their high byte. TIFFs without a nominal range:
    32-bit integers keep their high byte; floats are [0, 1] if none is larger, [0, 255] if none is larger
    than that, else their own range; what is not a number is black.

    Raises ``RecordFailure`` of stage ``decode``: EmptyImage, ZeroPixels, UnknownFormat, UnsupportedImage (a
    known format, a variety that cannot be read), TruncatedImage, CorruptImage, DecompressionBomb (more than
    ``max_pixels``; nothing is allocated), OutOfMemory. A picture that is cut short is never returned in part.
    May be called from several threads at once.
    """
    name = _sniff(data)
    _check_size(image_size(data), max_pixels)
    try:
        with _warnings_unseen():
            if name == "JPEG":
                return upright(*jpeg_pixels(data))
            found = fault(data, name)
            if found is not None:
                raise RecordFailure("decode", *found)
            with _READERS[name](io.BytesIO(data)) as image:
                _check_size((image.height, image.width), max_pixels)
                image.load()
                _check_size((image.height, image.width), max_pixels)
                if isinstance(image, PngImageFile) and _ends_in_zeros(image) and png_lacks_rows(data):
                    raise RecordFailure("decode", "TruncatedImage", "the PNG breaks off: its data ends before its rows")
                orientation = 1 if name == "TIFF" else _orientation(image)  # Pillow turns TIFFs while loading
                pixels = _to_rgb(image, data)
            return upright(pixels, orientation)
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


# What Pillow's readers were seen to raise on damaged files; anything else is a mistake of ours and shows as one.
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
            f"no JPEG, PNG, WebP, TIFF, BMP or GIF{f'; looks like {other}' if other else ''}{begins}",
        )
    return name


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    if size is None:
        return  # the reader will say what is wrong with the header
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
    """What an image looks like whose last rows were never filled; also many a good one."""
    return bool(image.info.get("interlace")) or not np.asarray(image)[-1].any()


def _to_rgb(image: ImageFile, data: bytes) -> np.ndarray:
    """The loaded image as uint8 (H, W, 3), not turned."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        grey = _scaled(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if mode == "LAB":
        to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return np.asarray(ImageCms.applyTransform(image, to_rgb))
    # The transparent colour of a 16-bit PNG cannot be told from its neighbours once it has 8 bits.
    deep = isinstance(image, PngImageFile) and data[24] == 16
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or ("transparency" in image.info and not deep):
        layer = image if mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _scaled(image: ImageFile) -> np.ndarray:
    """Grey of more than 8 bits to uint8 (H, W)."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    values = np.asarray(image)
    if image.mode == "F":
        grey = _float_to_uint8(values)
    else:
        bits = max(tags.get(258, (16,)))
        signed = bool(tags) and tags.get(339, (1,))[0] == 2
        unsigned = values.view(np.uint32) if bits == 32 and not signed else np.maximum(values, 0)
        grey = np.minimum(unsigned >> (bits - 8 - signed), 255).astype(np.uint8)
    # Pillow inverts WhiteIsZero for 8 bits alone.
    return 255 - grey if tags and tags.get(262) == _WHITE_IS_ZERO else grey


def _float_to_uint8(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    values = np.where(finite, values, 0).astype(np.float64)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if high <= 1:
        values = values * 255
    elif high > 255:
        values = (values - low) * (255 / max(high - low, np.finfo(np.float32).tiny))
    return np.where(finite, np.clip(np.rint(values), 0, 255), 0).astype(np.uint8)


def _orientation(image: ImageFile) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to refuse the picture
        return 1
    return value if isinstance(value, int) else 1


class _InOurDecode(threading.local):
    """Stands in a warning filter where a pattern would: matches any text, in threads that decode here."""

    active = False

    def match(self, text: str) -> bool:
        return self.active


_ours = _InOurDecode()
_filter = ("ignore", _ours, Warning, None, 0)
_filter_lock = threading.Lock()


@contextmanager
def _warnings_unseen() -> Iterator[None]:
    """No warning of this thread is shown or raised within; other threads and other code notice nothing.

    ``warnings.catch_warnings`` swaps the process-wide list, so that two threads that use it at once can leave
    it wrong for good. This adds one entry, which matches only while its own thread is in here.
    """
    if warnings.filters[:1] != [_filter]:  # others may have been put before it, or the list replaced
        with _filter_lock:
            if _filter in warnings.filters:
                warnings.filters.remove(_filter)  # type: ignore[attr-defined]
            warnings.filters.insert(0, _filter)  # type: ignore[attr-defined]
    _ours.active = True
    try:
        yield
    finally:
        _ours.active = False
