"""JPEG (ITU-T T.81): the segments that decoding needs, and decoding that refuses truncated images.

libjpeg fills missing data with gray and only warns. Pillow and OpenCV hide the warnings; simplejpeg raises them.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from segbatch.codecs.exif import orientation
from segbatch.errors import RecordFailure

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # not RST, stuffed zeros or fill bytes 0xff
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SOI, _EOI, _SOS, _DHT, _DNL, _TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDC, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_TABLES = frozenset({_DHT, 0xCC, 0xDB, 0xDD})
_CODINGS = {
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
}
_SPACES = {1: "RGB", 3: "RGB", 4: "CMYK"}  # by components; simplejpeg expands gray
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_FILLINGS = b"\x55" * 64, b"\xaa" * 64


@dataclass
class Segments:
    """The segments of a JPEG.

    Attributes:
        size: (height, width) of the frame header.
        coding: Marker of the frame header, which identifies the coding process.
        bits: Bits per sample.
        channels: Number of components.
        components: By identifier, how many bits of each coefficient no scan has coded; None is all of them.
        parts: What decoding needs, up to the end marker.
        scans: Indices into ``parts`` of entropy-coded data.
        orientation: EXIF orientation, 1 to 8.
        height_follows: Whether a DNL segment states the height after the pixels.
        ended: Whether there is an end marker.
    """

    size: tuple[int, int] | None = None
    coding: int = 0
    bits: int = 8
    channels: int = 0
    components: dict[int, list[int | None]] = field(default_factory=dict)
    parts: list[bytes | memoryview] = field(default_factory=lambda: [b"\xff\xd8"])
    scans: list[int] = field(default_factory=list)
    orientation: int = 1
    height_follows: bool = False
    ended: bool = False


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of the frame header; nothing behind it is read."""
    try:
        return _walk(data, until_frame=True).size
    except RecordFailure:
        return None


def jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8."""
    return _walk(data).orientation


def jpeg_pixels(data: bytes) -> tuple[np.ndarray, int]:
    """Return pixels uint8 (H, W, 3) RGB as stored, and the EXIF orientation.

    Metadata is removed first, and what libjpeg warns about although the pixels are correct is repaired.

    Raises:
        RecordFailure: The variety is not supported, or pixels are missing.
        ValueError, OSError, SyntaxError: libjpeg found damage.
    """
    segments = _walk(data)
    _refuse(segments, len(data))
    try:
        pixels = _decoded(segments)
    except ValueError as e:
        if "subsampling" not in str(e):
            raise
        pixels = _of_unusual_sampling(segments)
    if segments.channels == 4:  # stored inverted, as Adobe does and viewers expect with or without its marker
        return np.asarray(Image.fromarray(255 - pixels, "CMYK").convert("RGB")), segments.orientation
    return pixels, segments.orientation


def _walk(data: bytes, until_frame: bool = False) -> Segments:
    segments, view, at, code = Segments(), memoryview(data), 2, 0
    while (marker := _MARKER.search(data, at)) is not None:
        if code == _SOS:
            segments.scans.append(len(segments.parts))
            segments.parts.append(view[at : marker.start()])
        at, code = marker.end(), marker[1][0]
        if code == _EOI:
            segments.ended = True
            return segments
        if code == _SOI:  # as libjpeg does: what follows may be the thumbnail of a damaged EXIF segment
            raise RecordFailure("decode", "CorruptImage", f"the JPEG begins again at byte {marker.start()}")
        if code == _TEM:
            continue
        payload = data[at : at + int.from_bytes(data[at : at + 2], "big")]
        at += max(2, len(payload))
        if code in _FRAMES and len(payload) >= 8:
            _read_frame(segments, code, payload)
            if until_frame:
                return segments
        _keep(segments, code, payload)
    return segments


def _read_frame(segments: Segments, code: int, payload: bytes) -> None:
    segments.coding, segments.bits = code, payload[2]
    segments.size = int.from_bytes(payload[3:5], "big"), int.from_bytes(payload[5:7], "big")
    segments.channels = payload[7]
    segments.components = {identifier: [None] * 64 for identifier in payload[8 : 8 + 3 * payload[7] : 3]}


def _keep(segments: Segments, code: int, payload: bytes) -> None:
    """Add a segment that decoding needs, rewritten so that libjpeg does not warn about it."""
    if code == 0xE0 and payload[2:7] == b"JFIF\0" and len(payload) >= 16:
        segments.parts.append(_JFIF)  # three components are YCbCr; the original's revision and thumbnail may be wrong
        return
    if code == 0xE1 and payload[2:8] == b"Exif\0\0" and segments.orientation == 1:
        segments.orientation = orientation(payload[2:])
    if code == _DNL:
        segments.height_follows = True
    if code == _SOS:
        payload = _scan(segments, payload)
    is_adobe = code == 0xEE and payload[2:7] == b"Adobe" and len(payload) >= 14 and payload[13] <= 2
    if code in _FRAMES or code in _TABLES or code == _SOS or is_adobe:
        segments.parts += [bytes([0xFF, code]), payload]


def _scan(segments: Segments, payload: bytes) -> bytes:
    """Record the bits of each coefficient that are still missing after a scan."""
    count = payload[2] if len(payload) > 2 else 0
    if len(payload) != 6 + 2 * count:
        return payload  # libjpeg refuses it
    first, last, missing = payload[-3], payload[-2], payload[-1] & 15
    if segments.coding != _PROGRESSIVE:
        first, last, missing = 0, 63, 0
        payload = payload[:-3] + b"\0\x3f\0"  # some cameras leave them 0
    for identifier in payload[3 : 3 + 2 * count : 2]:
        coefficients = segments.components.get(identifier, [])
        coefficients[first : last + 1] = [missing] * len(coefficients[first : last + 1])
    return payload


def _refuse(segments: Segments, length: int) -> None:
    name = _CODINGS.get(segments.coding, f"{segments.bits}-bit" if segments.bits != 8 else "")
    if segments.size is not None and segments.size[0] == 0 and segments.height_follows:
        name = "height after the pixels (DNL)"
    if name or (segments.channels and segments.channels not in _SPACES):
        variety = name or f"{segments.channels} components"
        raise RecordFailure(
            "decode", "UnsupportedImage", f"a JPEG of a variety that is not read: {variety}; save it as 8-bit baseline"
        )
    if not (segments.ended and segments.scans):
        reason = f"the JPEG has no end marker: it breaks off within {length} bytes"
        raise RecordFailure("decode", "TruncatedImage", reason)
    if not segments.channels:
        raise RecordFailure("decode", "CorruptImage", "the JPEG has no frame header")
    if any(missing != 0 for coefficients in segments.components.values() for missing in coefficients):
        raise RecordFailure("decode", "TruncatedImage", "the JPEG breaks off between its scans: some are missing")


def _decoded(segments: Segments) -> np.ndarray:
    space = _SPACES[segments.channels]
    try:
        return _strictly(b"".join([*segments.parts, b"\xff\xd9"]), space)
    except ValueError as e:
        last = bytes(segments.parts[-1])
        if "before marker 0xd9" not in str(e) or not last.endswith(b"\0"):
            raise
        error = e
    # Zeros that pad to a block size are removed. The last codes may end in zeros, too, so up to three are kept.
    for kept in range(4):
        try:
            return _strictly(b"".join([*segments.parts[:-1], last.rstrip(b"\0"), bytes(kept), b"\xff\xd9"]), space)
        except ValueError:
            continue
    raise error


def _strictly(data: bytes, space: str) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, space, strict=True)


def _of_unusual_sampling(segments: Segments) -> np.ndarray:
    """Decode what simplejpeg refuses twice, with two fillings of missing bits: a truncated image gives two results."""
    filled = []
    for filling in _FILLINGS:
        parts = list(segments.parts)
        for scan in segments.scans:
            parts[scan] = _RESTART.sub(filling + rb"\g<0>", parts[scan]) + filling
        with JpegImageFile(io.BytesIO(b"".join([*parts, b"\xff\xd9"]))) as image:
            filled.append(np.asarray(image if image.mode in ("RGB", "CMYK") else image.convert("RGB")))
    if not np.array_equal(filled[0], filled[1]):
        raise RecordFailure("decode", "TruncatedImage", "the JPEG breaks off: premature end of data segment")
    return 255 - filled[0] if segments.channels == 4 else filled[0]
