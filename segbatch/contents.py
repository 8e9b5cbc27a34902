"""Kinds of files by their first bytes, and remedies where a file of another kind was expected."""

from __future__ import annotations

import re
from collections.abc import Container

FIRST_BYTES = 1024  # as many as the patterns need
LFS_POINTER = "a Git LFS pointer"
_UNPACK = "unpack it, and give the folder or its files"
_DECOMPRESS = "decompress it, and give the file that comes out"
_ANSWER = "it may be a server's answer instead of the file, so download the file again"
_PULL = "run `git lfs pull` in the clone, which downloads the file itself"

_IMAGES = (
    ("a JPEG image", rb"\xff\xd8\xff"),
    ("a PNG image", rb"\x89PNG\r\n\x1a\n"),
    ("a WebP image", rb"RIFF.{4}WEBP"),
    ("a GIF image", rb"GIF8[79]a"),
    ("a HEIC image", rb".{4}ftyp.{0,60}?(?:hei[cxms]|hev[cxms])"),
    ("an AVIF or HEIF image", rb".{4}ftyp.{0,60}?(?:avi[fs]|mif1|msf1)"),
    ("a video (MP4)", rb".{4}ftyp"),
    ("a JPEG 2000 image", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("a JPEG XL image", rb"\0\0\0\x0cJXL |\xff\x0a"),
    ("a Photoshop image", rb"8BPS"),
)
# (name, pattern, remedy). The first match counts.
_KINDS = [
    (LFS_POINTER, rb"version https://git-lfs|version https://hawser", _PULL),
    ("an SVG drawing", rb"(?i:(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,500}?)?<svg\b)", ""),
    (
        "an HTML page",
        rb"(?i:(?:\xef\xbb\xbf)?\s*(?:<!--.{0,500}?-->\s*)?(?:<!doctype html|<html|<head|<body))",
        _ANSWER,
    ),
    ("XML", rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<[A-Za-z][\w:.-]*[\s>/])", _ANSWER),
    ("JSON", rb"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\d\]])", _ANSWER),
    ("a PDF document", rb"%PDF-", ""),
    ("a ZIP archive", rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", _UNPACK),
    ("a 7z archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    ("a RAR archive", rb"Rar!\x1a\x07", _UNPACK),
    ("gzip data", rb"\x1f\x8b\x08[\0-\x1f].{4}[\0-\x08]", _DECOMPRESS),
    ("bzip2 data", rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", _DECOMPRESS),
    ("xz data", rb"\xfd7zXZ\0", _DECOMPRESS),
    ("zstd data", rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", _DECOMPRESS),
    ("lz4 data", rb"\x04\x22\x4d\x18", _DECOMPRESS),
    ("lzip data", rb"LZIP\x01", _DECOMPRESS),
    ("Unix compress data (.Z)", rb"\x1f\x9d[\x80-\x9f](?!\0)", _DECOMPRESS),
    ("a tar archive", rb".{257}ustar", "give it a name that ends in .tar"),
    ("a Parquet file", rb"PAR1", "give it a name that ends in .parquet"),
    *((name, pattern, "give it the suffix of its format") for name, pattern in _IMAGES),
    ("PostScript", rb"%!PS", ""),
    ("a TFRecord file of TensorFlow", rb".{4}\0{4}.{4}\x0a.{1,4}\x0a", ""),
    ("an HDF5 file", rb"\x89HDF\r\n\x1a\n", ""),
    ("a NumPy array", rb"\x93NUMPY", ""),
    ("a Python pickle", rb"\x80[\x02-\x05]", ""),
    ("an ELF executable", rb"\x7fELF", ""),
]
# Of archives and compressed files, which are not supported.
_SUFFIXES = {
    "zip": "a ZIP archive",
    "7z": "a 7z archive",
    "rar": "a RAR archive",
    "gz": "gzip data",
    "bz2": "bzip2 data",
    "xz": "xz data",
    "zst": "zstd data",
    "lz4": "lz4 data",
    "lz": "lzip data",
    "z": "Unix compress data (.Z)",
    "br": "Brotli data",
}
_PATTERNS = [(name, re.compile(pattern, re.DOTALL), remedy) for name, pattern, remedy in _KINDS]
# Kinds that checkpoints and class lists are written in (torch.save writes ZIPs), or that the length at the start of a
# safetensors file may be mistaken for.
OF_WEIGHTS = frozenset(
    {"a ZIP archive", "JSON", "a Python pickle", "an HDF5 file", "a NumPy array", "a TFRecord file of TensorFlow"}
)


def archive_by_name(name: str) -> str:
    """Return the kind and remedy, ``a ZIP archive: unpack …``, of an archive by its suffix; "" for any other name."""
    suffix = name.lower().rpartition(".")[2]
    kind = _SUFFIXES.get(suffix, "")
    return f"{kind}: {_UNPACK if 'archive' in kind else _DECOMPRESS}" if kind else ""


def looks_like(data: bytes) -> str:
    """Return the kind that ``data`` begins as: ``a Git LFS pointer``, ``zero bytes``, ``text``; "" if unknown."""
    name, _ = _kind(data)
    if name:
        return name
    head = data[:256]
    if not head:
        return "empty"
    if not any(head):
        return "zero bytes"
    return "text" if not re.search(rb"[^\t\n\r\x1b -~\x80-\xff]", head) and _is_utf8(head) else ""


def recognized(data: bytes, allowed: Container[str] = ()) -> str:
    """Return kind and remedy, ``a Git LFS pointer: run …``, of data of a known kind not in ``allowed``; else ""."""
    name, remedy = _kind(data)
    return "" if not name or name in allowed else f"{name}{': ' if remedy else ''}{remedy}"


def _kind(data: bytes) -> tuple[str, str]:
    head = bytes(data[:FIRST_BYTES])
    return next(((name, remedy) for name, pattern, remedy in _PATTERNS if pattern.match(head)), ("", ""))


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as e:
        return e.end >= len(head) and len(head) > 4  # truncated within a character
    return True
