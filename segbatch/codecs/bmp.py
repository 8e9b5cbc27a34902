"""BMP: decoding of run lengths, which Pillow gets wrong where rows are empty or the bitmap ends early."""

from __future__ import annotations

import struct

import numpy as np

from segbatch.errors import RecordFailure

_RLE8, _RLE4 = 1, 2
_END_OF_LINE, _END_OF_BITMAP, _DELTA = 0, 1, 2


def bmp_size(data: bytes) -> tuple[int, int]:
    is_old = data[14] == 12
    width, height = struct.unpack_from("<HH" if is_old else "<ii", data, 18)
    return abs(height), abs(width)


def plain_bmp(data: bytes) -> tuple[bytes, int]:
    """Return the BMP, with RLE8 and RLE4 as 8 bits without compression, and orientation 1.

    Pixels that no run covers have the first color of the palette.

    Raises:
        RecordFailure: Runs are missing.
    """
    if len(data) < 54 or data[14] < 40 or struct.unpack_from("<I", data, 30)[0] not in (_RLE8, _RLE4):
        return data, 1
    (offset,), (bits,) = struct.unpack_from("<I", data, 10), struct.unpack_from("<H", data, 28)
    height, width = bmp_size(data)
    colors = struct.unpack_from("<I", data, 46)[0] or 1 << min(bits, 8)
    rows = _unpacked(data[offset:], height, width, nibbles=bits == 4)
    rows = np.pad(rows, ((0, 0), (0, -width % 4)))
    head = bytearray(data[:offset])
    struct.pack_into("<HII", head, 28, 8, 0, rows.size)
    struct.pack_into("<I", head, 46, colors)
    return bytes(head) + rows.tobytes(), 1


def _unpacked(code: bytes, height: int, width: int, nibbles: bool) -> np.ndarray:
    """Return palette indices uint8 (height, width), rows in the order of the file."""
    rows = np.zeros((height, width), np.uint8)
    at = x = y = 0
    while y < height:
        if at + 2 > len(code):
            if (x, y) == (width, height - 1):
                break  # some encoders omit the end of the bitmap
            raise RecordFailure("decode", "TruncatedImage", f"the BMP breaks off in row {y} of {height}")
        count, value = code[at], code[at + 1]
        at += 2
        if count:
            values = np.full(count, value, np.uint8)
            if nibbles:
                values[::2], values[1::2] = value >> 4, value & 15
        elif value == _END_OF_LINE:
            x, y = 0, y + 1
            continue
        elif value == _END_OF_BITMAP:
            break
        elif value == _DELTA:
            x, y, at = x + sum(code[at : at + 1]), y + sum(code[at + 1 : at + 2]), at + 2
            continue
        else:
            size = -(-value // 2) if nibbles else value
            values = np.frombuffer(code[at : at + size], np.uint8)
            values = np.stack([values >> 4, values & 15], axis=1).ravel()[:value] if nibbles else values
            at += size + size % 2
        part = values[: max(0, width - x)]
        rows[y, x : x + len(part)] = part
        x = min(x + len(values), width)
    return rows
