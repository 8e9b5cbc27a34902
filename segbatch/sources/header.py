"""What the first and the last bytes of an image tell without decoding it: format, size, completeness.

Sizes are read here and not by Pillow, so that a limit on them holds whatever Pillow's own limits are set to,
and before anything is allocated.
"""

from __future__ import annotations

import re
import struct
import zlib

from segbatch.sources.jpeg import jpeg_size

_MAGIC = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II\x2a\0|MM\0\x2a|II\x2b\0|MM\0\x2b")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{12}(?:\x0c|\x28|\x34|\x38|\x40|\x6c|\x7c)\0\0\0", re.DOTALL)),
)
_PIECE = 2**20
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def image_format(data: bytes) -> str | None:
    """``JPEG PNG WEBP TIFF GIF BMP``, or None if the first bytes are none of theirs."""
    return next((name for name, magic in _MAGIC if magic.match(data)), None)


def image_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that the header declares, as stored (before EXIF rotation); None if it declares none."""
    name = image_format(data)
    if name is None:
        return None
    try:
        size = _SIZES[name](data)
    except (struct.error, IndexError):
        return None
    return None if size is None else (abs(size[1]), abs(size[0]))


def fault(data: bytes, name: str) -> tuple[str, str] | None:
    """(kind, sentence) if the container of format ``name`` shows that bytes are missing or changed, else None.

    Decoders differ in what they forgive; a picture that is grey from the middle on must not pass because one
    of them does. PNG: every critical chunk is whole and its checksum right, up to IEND. WebP: the length that
    RIFF declares. TIFF: its directory. What follows the end of the image is nobody's business.
    """
    check = _FAULTS.get(name)
    return check(data) if check else None


def _png_fault(data: bytes) -> tuple[str, str] | None:
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return "CorruptImage", f"the PNG's {kind!r} chunk at byte {at} has a wrong checksum"
        if kind == b"IEND":
            return None
        at = end
    return "TruncatedImage", f"the PNG breaks off: {len(data)} bytes, and no IEND chunk within them"


def png_lacks_rows(data: bytes) -> bool:
    """Whether the IDAT chunks of a PNG inflate to less than its rows need: Pillow leaves those that lack black.

    Inflates a second time, without keeping what comes out. Chunks that ``fault`` refuses are not looked for.
    """
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    depth = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = [(width, height)]
    if interlaced:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
    lacking = sum(h * (1 + -(-w * depth // 8)) for w, h in passes if w > 0 and h > 0)
    inflate, at = zlib.decompressobj(), 8
    while at + 12 <= len(data) and not inflate.eof:
        length, kind = struct.unpack_from(">I4s", data, at)
        rest = data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        while rest and lacking > 0:
            lacking -= len(inflate.decompress(rest, _PIECE))
            rest = inflate.unconsumed_tail
        at += 12 + length
    return lacking > 0


def _webp_fault(data: bytes) -> tuple[str, str] | None:
    declared = int.from_bytes(data[4:8], "little") + 8
    if declared <= len(data):
        return None
    return "TruncatedImage", f"the WebP declares {declared} bytes and has {len(data)}"


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp_size(data: bytes) -> tuple[int, int]:
    old = data[14] == 12
    return struct.unpack_from("<HH" if old else "<ii", data, 18)


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    count_code, entry_size, value_at = ("Q", 20, 12) if big else ("H", 12, 8)
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_code, data, directory)
    size: dict[int, int] = {}
    for at in range(directory + struct.calcsize(count_code), len(data), entry_size)[: min(count, 65535)]:
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257):
            code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            size[tag] = struct.unpack_from(order + code, data, at + value_at)[0]
    return (size[256], size[257]) if len(size) == 2 else None


def _tiff_fault(data: bytes) -> tuple[str, str] | None:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    count_code, entry_size, at = ("Q", 20, 8) if big else ("H", 12, 4)
    try:
        (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
        (count,) = struct.unpack_from(order + count_code, data, directory)
    except struct.error:
        return "TruncatedImage", f"the TIFF breaks off: {len(data)} bytes, and its directory is not within them"
    end = directory + struct.calcsize(count_code) + count * entry_size
    if end > len(data):
        return "TruncatedImage", f"the TIFF breaks off: {len(data)} bytes, and its directory ends at byte {end}"
    return None


_SIZES = {
    "JPEG": lambda data: None if (size := jpeg_size(data)) is None else size[::-1],
    "PNG": lambda data: struct.unpack_from(">II", data, 16),
    "WEBP": _webp_size,
    "TIFF": _tiff_size,
    "GIF": lambda data: struct.unpack_from("<HH", data, 6),
    "BMP": _bmp_size,
}
_FAULTS = {"PNG": _png_fault, "WEBP": _webp_fault, "TIFF": _tiff_fault}
