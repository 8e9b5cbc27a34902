"""TIFF 6.0 and BigTIFF: the tags that decoding needs, and planar or interleaved bands of any depth."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from segbatch.codecs.depth import floats_to_uint8, integers_to_uint8, over_white
from segbatch.errors import RecordFailure

_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _ORIENTATION = 256, 258, 259, 262, 273, 274
_BANDS, _COUNTS, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_OFFSETS, _TILE_COUNTS = 277, 279, 284, 317, 322, 324, 325
_EXTRA, _FORMAT = 338, 339
# Tags of the baseline, compression and color spaces; decoders need no profiles, EXIF and private tags.
_NEEDED = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338, 339, 347)
) | set(range(512, 522)) | set(range(529, 533))  # fmt: skip
_UNITS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_OTHER_SIZES = {2: 1, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4}  # in bytes; those of 5, 10, 12 and 17 are 8
_WHITE_IS_ZERO, _GRAY, _RGB, _CMYK = 0, 1, 2, 5
_COLORS = {_WHITE_IS_ZERO: 1, _GRAY: 1, _RGB: 3, _CMYK: 4}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_PREMULTIPLIED, _ALPHA = 1, 2
# _LOSSLESS: compressions of bytes, whatever they mean: none, LZW, deflate (two numbers), PackBits, LZMA, zstd.
_MAX_BANDS = 16
_LOSSLESS = {1, 5, 8, 32946, 32773, 34925, 50000}


@dataclass(frozen=True)
class TagEntry:
    """A tag's type, count and values in the byte order of the file; of values that do not fit, their offset ``at``."""

    kind: int
    count: int
    values: bytes
    at: int = 0


@dataclass(frozen=True)
class Directory:
    """The first image file directory of a TIFF."""

    data: bytes
    order: str
    entries: Mapping[int, TagEntry]

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the first 64 values of a tag of unsigned integers."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _UNITS:
            return default
        count = min(entry.count, 64)
        return struct.unpack_from(f"{self.order}{count}{_UNITS[entry.kind]}", entry.values or self.data[entry.at :])

    def number(self, tag: int, default: int) -> int:
        return next(iter(self.numbers(tag)), default)

    def short(self, value: int) -> TagEntry:
        return TagEntry(3, 1, struct.pack(f"{self.order}H", value))

    def long(self, value: int) -> TagEntry:
        return TagEntry(4, 1, struct.pack(f"{self.order}I", value))

    def part(self, tag: int, index: int, parts: int) -> TagEntry:
        """Return one of ``parts`` equal parts of a tag's values."""
        entry = self.entries[tag]
        count = entry.count // parts
        unit = struct.calcsize(_UNITS[entry.kind])
        first = index * count * unit
        return TagEntry(entry.kind, count, entry.values[first:] or self.data[entry.at + first :][: count * unit])

    def file(self, entries: Mapping[int, TagEntry]) -> bytes:
        """Return a TIFF whose only directory has ``entries``; all offsets stay valid.

        A BigTIFF becomes a classic TIFF, since Pillow does not read big-endian BigTIFFs.
        """
        begin = len(self.data) + len(self.data) % 2
        at = begin + 2 + 12 * len(entries) + 4
        fields: list[bytes] = []
        behind: list[bytes] = []
        for tag, entry in sorted(entries.items()):
            entry = self._classic(entry)
            size = len(entry.values)
            if size <= 4:
                field = entry.values.ljust(4, b"\0") if size else struct.pack(f"{self.order}I", entry.at)
            else:
                field = struct.pack(f"{self.order}I", at + sum(map(len, behind)))
                behind.append(entry.values)
            fields.append(struct.pack(f"{self.order}HHI", tag, entry.kind, entry.count) + field)
        head = (b"II\x2a\0" if self.order == "<" else b"MM\0\x2a") + struct.pack(f"{self.order}I", begin)
        count = struct.pack(f"{self.order}H", len(entries))
        padding = bytes(len(self.data) % 2)
        return b"".join([head, self.data[8:], padding, count, *fields, bytes(4), *behind])

    def _classic(self, entry: TagEntry) -> TagEntry:
        """Return the entry with numbers of at most 32 bits."""
        if entry.kind not in (16, 18):
            return entry
        values = entry.values or self.data[entry.at :][: 8 * entry.count]
        numbers = struct.unpack(f"{self.order}{len(values) // 8}Q", values[: len(values) // 8 * 8])
        return TagEntry(
            4, len(numbers), struct.pack(f"{self.order}{len(numbers)}I", *(min(n, 2**32 - 1) for n in numbers))
        )


def tiff_size(data: bytes) -> tuple[int, int] | None:
    try:
        directory = _directory(data)
        size = directory.numbers(257) + directory.numbers(_WIDTH)
    except (RecordFailure, struct.error):
        return None
    return (size[0], size[1]) if len(size) == 2 else None


def plain_tiff(data: bytes) -> tuple[bytes, int]:
    """Return the first page with the tags that decoding needs, and its orientation. Raises ``RecordFailure``."""
    directory = _directory(data)
    orientation = directory.number(_ORIENTATION, 1)
    return directory.file(
        {t: e for t, e in directory.entries.items() if t in _NEEDED}
    ), orientation if 1 <= orientation <= 8 else 1


def deep_pixels(data: bytes) -> np.ndarray | None:
    """Return pixels uint8 (H, W, 3) of planar bands and bands of 16 bits and more; None for what Pillow decodes.

    Pillow confuses uncompressed planar bands of 16 bits, and supports few layouts of several deep bands. Therefore it
    decodes the bytes of samples as a wider gray image of 8 bits, or each band separately.

    Raises:
        RecordFailure: The layout is not supported, or the file is truncated.
    """
    directory = _directory(data)
    count, photometric = directory.number(_BANDS, 1), directory.number(_PHOTOMETRIC, _GRAY)
    depths, kind = set(directory.numbers(_BITS, (1,))), directory.number(_FORMAT, _UNSIGNED)
    bits, colors = max(depths), _COLORS.get(photometric, 0)
    is_planar = directory.number(_PLANAR, 1) == 2 or count == 1
    is_known = not is_planar and (bits, kind) == (16, _UNSIGNED) and (photometric, count) in ((2, 3), (2, 4), (5, 4))
    if (bits <= 8 and (count == 1 or not is_planar)) or is_known:
        return None
    variety = f"{count} bands of {', '.join(map(str, sorted(depths)))} bits, photometric interpretation {photometric}"
    if not colors or len(depths) > 1 or not colors <= count <= _MAX_BANDS or (colors == 1 and count > 2):
        raise _unsupported(variety)
    # Depths for which Pillow has no gray mode, or whose bytes it confuses.
    as_bytes = not is_planar or bits == 64 or (bits, kind) == (16, _FLOAT) or (bits == 32 and directory.order == ">")
    if as_bytes and (directory.number(_PREDICTOR, 1) != 1 or directory.number(_COMPRESSION, 1) not in _LOSSLESS):
        raise _unsupported(f"{variety}, compression {directory.number(_COMPRESSION, 1)} with a predictor")
    files = list(_band_files(directory, count)) if is_planar else [dict(directory.entries)]
    bands = [_samples(directory, entries, 1 if is_planar else count, as_bytes) for entries in files]
    return _to_rgb(directory, np.concatenate(bands, axis=2), colors, bits, photometric)


def _unsupported(variety: str) -> RecordFailure:
    return RecordFailure("decode", "UnsupportedImage", f"a TIFF of a variety that cannot be read: {variety}")


def _directory(data: bytes) -> Directory:
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"\x2b\0", b"\0\x2b")
    count_code, entry_size, pointer = ("Q", 20, 8) if big else ("H", 12, 4)
    try:
        (begin,) = struct.unpack_from(order + ("Q" if big else "I"), data, pointer)
        (count,) = struct.unpack_from(order + count_code, data, begin)
    except struct.error:
        reason = f"the TIFF breaks off: {len(data)} bytes, and its directory is not within them"
        raise RecordFailure("decode", "TruncatedImage", reason) from None
    first = begin + struct.calcsize(count_code)
    end = first + count * entry_size
    if end > len(data):
        reason = f"the TIFF breaks off: {len(data)} bytes, and its directory ends at byte {end}"
        raise RecordFailure("decode", "TruncatedImage", reason)
    entries: dict[int, TagEntry] = {}
    for at in range(first, end, entry_size):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
        size = values * (struct.calcsize(_UNITS[kind]) if kind in _UNITS else _OTHER_SIZES.get(kind, 8))
        field = data[at + (12 if big else 8) : at + entry_size]
        if size <= len(field):
            entries.setdefault(tag, TagEntry(kind, values, field[:size]))
        else:
            entries.setdefault(tag, TagEntry(kind, values, b"", struct.unpack(order + ("Q" if big else "I"), field)[0]))
    return Directory(data, order, entries)


def _band_files(directory: Directory, count: int) -> Iterator[dict[int, TagEntry]]:
    places = [t for t in (_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS) if t in directory.entries]
    for index in range(count):
        yield {**directory.entries, **{tag: directory.part(tag, index, count) for tag in places}}


def _samples(directory: Directory, entries: dict[int, TagEntry], count: int, as_bytes: bool) -> np.ndarray:
    """Return samples (H, W, ``count``) as stored; of depths below 8 bits scaled to 0 to 255."""
    bits, kind = directory.number(_BITS, 1), directory.number(_FORMAT, _UNSIGNED)
    width = directory.number(_WIDTH, 0)
    for tag in (_EXTRA, 320, 332):
        entries.pop(tag, None)
    entries |= {tag: directory.short(1) for tag in (_BANDS, _PLANAR, _PHOTOMETRIC)}
    if not as_bytes:
        entries |= {_BITS: directory.short(bits), _FORMAT: directory.short(kind)}
        return np.asarray(_gray(directory.file(entries)))[:, :, None]
    wider = count * bits // 8
    for tag in {_WIDTH, _TILE_WIDTH} & entries.keys():
        entries[tag] = directory.long(directory.number(tag, 0) * wider)
    entries |= {_BITS: directory.short(8), _FORMAT: directory.short(_UNSIGNED)}
    stored = np.asarray(_gray(directory.file(entries)))
    sample = np.dtype(f"{directory.order}{ {_SIGNED: 'i', _FLOAT: 'f'}.get(kind, 'u') }{bits // 8}")
    return np.ascontiguousarray(stored).view(sample).reshape(-1, width, count)


def _gray(file: bytes) -> Image.Image:
    with TiffImageFile(io.BytesIO(file)) as image:
        image.load()
        return image.convert("L") if image.mode == "1" else image


def _to_rgb(directory: Directory, bands: np.ndarray, colors: int, bits: int, photometric: int) -> np.ndarray:
    kind = directory.number(_FORMAT, _UNSIGNED)

    def to_uint8(values: np.ndarray) -> np.ndarray:
        if kind == _FLOAT:
            return floats_to_uint8(values)
        return values if bits <= 8 else integers_to_uint8(values, bits, kind == _SIGNED)

    color = to_uint8(bands[:, :, :colors])
    if photometric == _CMYK:
        color = np.asarray(Image.fromarray(np.ascontiguousarray(color), "CMYK").convert("RGB"))
    elif colors == 1:
        color = np.repeat(255 - color if photometric == _WHITE_IS_ZERO else color, 3, axis=2)
    for index, meaning in enumerate(directory.numbers(_EXTRA)[: bands.shape[2] - colors]):
        if meaning in (_PREMULTIPLIED, _ALPHA):
            return over_white(color, to_uint8(bands[:, :, colors + index]), meaning == _PREMULTIPLIED)
    return color
