"""PNG: the chunks that decoding needs, and whether they are complete."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from segbatch.codecs.exif import orientation
from segbatch.errors import RecordFailure

_PIECE = 2**20
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Valid sizes of a tRNS chunk by color type; of a palette at most its number of entries.
_TRANSPARENCY = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}


def png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def plain_png(data: bytes) -> tuple[bytes, int]:
    """Return the signature, the critical chunks and a valid tRNS chunk, and the EXIF orientation.

    Text, profiles and animation are removed unread: Pillow refuses images for damage in them.

    Raises:
        RecordFailure: A critical chunk has a wrong checksum, or there is no IEND chunk.
    """
    parts, oriented = [data[:8]], 1
    color = data[25] if len(data) > 25 else -1
    for at, kind, end in _chunks(data):
        content = memoryview(data)[at + 8 : end - 4]
        is_valid = zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        is_critical = not kind[0] & 0x20
        if is_critical and not is_valid:
            reason = f"the PNG's {kind!r} chunk at byte {at} has a wrong checksum"
            raise RecordFailure("decode", "CorruptImage", reason)
        if kind == b"eXIf" and is_valid:
            oriented = orientation(bytes(content))
        is_transparency = kind == b"tRNS" and is_valid and len(content) in _TRANSPARENCY.get(color, ())
        if is_critical or is_transparency:
            parts.append(data[at:end])
        if kind == b"IEND":
            return b"".join(parts), oriented
    raise RecordFailure(
        "decode", "TruncatedImage", f"the PNG breaks off: {len(data)} bytes, and no IEND chunk within them"
    )


def png_lacks_rows(data: bytes) -> bool:
    """Return whether the IDAT chunks inflate to less than the rows need: Pillow leaves missing rows black.

    Inflates a second time, in constant memory.
    """
    width, height, bits, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    depth = bits * _CHANNELS.get(color, 1)
    passes = [(width, height)]
    if interlaced:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
    missing = sum(h * (1 + -(-w * depth // 8)) for w, h in passes if w > 0 and h > 0)
    inflate = zlib.decompressobj()
    for at, kind, end in _chunks(data):
        compressed = data[at + 8 : end - 4] if kind == b"IDAT" and not inflate.eof else b""
        while compressed and missing > 0:
            missing -= len(inflate.decompress(compressed, _PIECE))
            compressed = inflate.unconsumed_tail
    return missing > 0


def _chunks(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (first byte, type, end) of each complete chunk."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        yield at, kind, at + 12 + length
        at += 12 + length
