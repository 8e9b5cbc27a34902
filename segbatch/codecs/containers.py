"""GIF, WebP, AVIF and HEIC: sizes, and the parts that decoding the first frame needs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from segbatch.codecs.exif import orientation
from segbatch.errors import RecordFailure

_EXTENSION, _IMAGE, _TRAILER, _GRAPHIC_CONTROL = 0x21, 0x2C, 0x3B, 0xF9
_WEBP_IMAGES = (b"VP8 ", b"VP8L", b"ANMF")
_WEBP_PARTS = (*_WEBP_IMAGES, b"VP8X", b"ALPH", b"ANIM")
_WEBP_FLAGS = 0x10 | 0x02  # alpha, animation; without those of the profile, EXIF and XMP
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_EXIF_ITEM = re.compile(rb"(infe[\2\3].{3}(?:.{4}|.{6}))Exif", re.DOTALL)
_EXTENT = re.compile(rb"ispe\0{4}(.{8})", re.DOTALL)


def gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def plain_gif(data: bytes) -> tuple[bytes, int]:
    """Return the GIF without comments and application extensions before its first frame, and orientation 1."""
    at = header = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    control = b""
    while at < len(data) and data[at] != _TRAILER:
        if data[at] == _IMAGE:
            return data[:header] + control + data[at:], 1
        if data[at] == _EXTENSION:
            end = _after_blocks(data, at + 2)
            if data[at + 1 : at + 3] == bytes([_GRAPHIC_CONTROL, 4]):
                control = data[at:end]
            at = end
        else:
            at += 1
    raise RecordFailure("decode", "TruncatedImage", f"the GIF breaks off: {len(data)} bytes, and no frame within them")


def _after_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def plain_webp(data: bytes) -> tuple[bytes, int]:
    """Return the chunks of the frames, and the EXIF orientation.

    Raises:
        RecordFailure: The file is truncated before or within the first frame.
    """
    parts, oriented, at, is_complete = [], 1, 12, False
    declared = int.from_bytes(data[4:8], "little") + 8
    while at + 8 <= min(len(data), declared):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size
        if end > len(data):
            is_complete = is_complete and (kind not in _WEBP_PARTS or kind == b"ANMF")
            break
        content = data[at + 8 : end]
        if kind == b"VP8X":
            content = bytes([content[0] & _WEBP_FLAGS]) + content[1:] if content else content
        elif kind == b"EXIF":
            oriented = orientation(content)
        if kind in _WEBP_PARTS:
            parts += [data[at : at + 8], content, b"\0" * (size % 2)]
        is_complete = is_complete or kind in _WEBP_IMAGES
        at = end + size % 2
    else:
        is_complete = is_complete and declared <= len(data) + 1  # some encoders omit the padding at the end
    if not is_complete:
        reason = f"the WebP breaks off: it declares {declared} bytes and has {len(data)}"
        raise RecordFailure("decode", "TruncatedImage", reason)
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body, oriented


def heif_format(data: bytes) -> str | None:
    """Return ``AVIF`` or ``HEIC`` by the brands of an ISO base media file (ISO/IEC 23008-12); None for others."""
    if data[4:8] != b"ftyp":
        return None
    end = min(max(int.from_bytes(data[:4], "big"), 16), 512)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return "AVIF" if brands & _AVIF else "HEIC" if brands & _HEIC else None


def heif_size(data: bytes) -> tuple[int, int] | None:
    """Return the largest extent of any item, which is that of the whole image of a grid; None for sequences."""
    extents = [
        struct.unpack(">II", match[1]) for begin, end in _meta(data) for match in _EXTENT.finditer(data, begin, end)
    ]
    width, height = max(extents, key=lambda extent: extent[0] * extent[1], default=(0, 0))
    return (height, width) if extents else None


def plain_heif(data: bytes) -> tuple[bytes, int]:
    """Return the file with its EXIF item renamed, and 1: ``irot`` and ``imir`` orient these formats, not EXIF."""
    for begin, end in _meta(data):
        data = data[:begin] + _EXIF_ITEM.sub(rb"\1skip", data[begin:end]) + data[end:]
    return data, 1


def _meta(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        end = at + size if size >= 8 else len(data)
        if data[at + 4 : at + 8] == b"meta":
            yield at, min(end, len(data))
        at = end
