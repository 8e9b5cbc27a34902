"""TIFFs and BMPs of layouts that no encoder at hand writes, put together by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np

_CODES = {"B": 1, "H": 3, "I": 4, "Q": 16}
UNCOMPRESSED, DEFLATE = 1, 8


def tiff(
    bands: np.ndarray,
    *,
    photometric: int = 2,
    planar: bool = False,
    tile: int = 0,
    rows: int = 0,
    extra: tuple[int, ...] = (),
    order: str = "<",
    compression: int = UNCOMPRESSED,
    predictor: bool = False,
    big: bool = False,
    tags: dict[int, tuple[str, list[int]]] | None = None,
) -> bytes:
    """A TIFF of samples (H, W, C): chunky or ``planar``, in strips of ``rows`` (0: one strip) or in tiles."""
    height, width, count = bands.shape
    kind = {"u": 1, "i": 2, "f": 3}[bands.dtype.kind]
    planes = [bands[:, :, c : c + 1] for c in range(count)] if planar else [bands]
    if tile:
        padded = [np.pad(p, ((0, -height % tile), (0, -width % tile), (0, 0))) for p in planes]
        corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
        blocks = [p[y : y + tile, x : x + tile] for p in padded for y, x in corners]
    else:
        rows = rows or height
        blocks = [p[y : y + rows] for p in planes for y in range(0, height, rows)]
    if predictor:
        blocks = [np.concatenate([b[:, :1], np.diff(b, axis=1)], axis=1) for b in blocks]
    stored = [b.astype(b.dtype.newbyteorder(order)).tobytes() for b in blocks]
    stored = [zlib.compress(b) for b in stored] if compression == DEFLATE else stored
    head = 16 if big else 8
    offsets = [head + sum(map(len, stored[:i])) for i in range(len(stored))]
    sizes = [len(b) for b in stored]
    found: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bands.dtype.itemsize * 8] * count),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        277: ("H", [count]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [kind] * count),
        **({317: ("H", [2])} if predictor else {}),
        **({338: ("H", list(extra))} if extra else {}),
        **(
            {322: ("I", [tile]), 323: ("I", [tile]), 324: ("I", offsets), 325: ("I", sizes)}
            if tile
            else {273: ("I", offsets), 278: ("I", [rows]), 279: ("I", sizes)}
        ),
        **(tags or {}),
    }
    return _file(b"".join(stored), found, order, big)


def _file(pixels: bytes, tags: dict[int, tuple[str, list[int]]], order: str, big: bool) -> bytes:
    pointer, field = ("Q", 8) if big else ("I", 4)
    directory = len(pixels) + (16 if big else 8)
    at = directory + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
    entries, values = b"", b""
    for tag, (code, numbers) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, _CODES[code], len(numbers))
        entries += raw.ljust(field, b"\0") if len(raw) <= field else struct.pack(order + pointer, at + len(values))
        values += raw if len(raw) > field else b""
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head = magic + (struct.pack(order + "HHQ", 8, 0, directory) if big else struct.pack(order + "I", directory))
    return head + pixels + struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + bytes(field) + values


def bmp(
    rows: bytes,
    height: int,
    width: int,
    bits: int,
    *,
    header: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    top_down: bool = False,
) -> bytes:
    """A BMP of ``rows`` that are stored so, padded to 4 bytes each; ``header`` is its version's size."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if top_down else height
        colors = len(palette) // 4
        info = struct.pack(
            "<IiiHHIIiiII", header, width, signed, 1, bits, compression, len(rows), 2835, 2835, colors, 0
        )
        packed = struct.pack(f"<{len(masks)}I", *masks)
        info += packed if header == 40 else packed.ljust(header - 40, b"\0")
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + palette + rows


def bmp_rows(pixels: np.ndarray) -> bytes:
    """Rows (H, bytes) from the last to the first, each padded to a multiple of 4 bytes."""
    flat = pixels.reshape(len(pixels), -1).view(np.uint8)
    return np.pad(flat, ((0, 0), (0, -flat.shape[1] % 4)))[::-1].tobytes()
