"""The EXIF orientation, read without the rest of the metadata, which may be damaged."""

from __future__ import annotations

import struct

import numpy as np

_ORIENTATION = 0x0112
_CODES = {1: "B", 3: "H", 4: "I"}


def orientation(exif: bytes) -> int:
    """Return 1 to 8 (EXIF 2.32, tag 274) from IFD 0 of a TIFF structure; 1 if it has none or is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(order + _CODES.get(kind, "H"), exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # damaged metadata is no reason to refuse the image
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return ``pixels`` with an EXIF orientation applied, as a contiguous array that owns its data."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.require(pixels, np.uint8, ["C", "O", "W"])
