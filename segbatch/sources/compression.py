"""Compressed streams, decompressed in bounded memory; damage raises ``RecordFailure``."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from segbatch.errors import Outage, RecordFailure

# A file may declare a dictionary of 4 GiB; `xz -9` needs 65 MiB. zstd's own limit is 128 MiB.
_MAX_XZ_MEMORY = 256 * 2**20
_READ_BYTES = 2**16


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Decompressed:
    """Reads the content of a compressed stream.

    ``read`` returns at most ``size`` bytes, none at the end. It raises ``RecordFailure`` TruncatedShard if the stream
    is truncated, CorruptShard if it is damaged, and whatever reading ``stream`` raises.
    """

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self._name, self._at, self._source = name, 0, _Source(stream)
        self._inner = _READERS[name](self._source)

    def read(self, size: int) -> bytes:
        try:
            data = self._inner.read(size)
        except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as e:
            if self._source.error is not None:
                raise self._source.error from None
            truncated = isinstance(e, EOFError) or "Truncated" in str(e)
            text = f"the {self._name} stream breaks off; {self._at} bytes came out of it"
            if not truncated:
                text = f"the {self._name} stream is damaged after {self._at} bytes ({str(e)[:200]})"
            raise RecordFailure("read", "TruncatedShard" if truncated else "CorruptShard", text) from None
        self._at += len(data)
        return data


class _Source(io.RawIOBase):
    """Stream that keeps its own errors apart from those of a decompressor, which are ``OSError`` as well."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except (OSError, Outage) as e:
            self.error = e
            raise


class _Streams:
    """Concatenated bzip2 or xz streams, as parallel compressors write them."""

    def __init__(self, source: _Source, new: Callable[[], Any], padding: bytes) -> None:
        self._source, self._new, self._padding = source, new, padding
        self._current, self._begun = new(), False

    def read(self, size: int) -> bytes:
        data = b""
        while size and not data:
            fed = b""
            if self._current.eof:
                fed = self._current.unused_data.lstrip(self._padding)
                while not fed and (fed := self._source.read(_READ_BYTES)):
                    fed = fed.lstrip(self._padding)
                if not fed:
                    return b""
                self._current = self._new()
            elif self._current.needs_input and not (fed := self._source.read(_READ_BYTES)):
                raise EOFError
            data = self._current.decompress(fed, size)
        return data


_READERS: dict[str, Callable[[_Source], _Readable]] = {
    "gzip": lambda source: gzip.GzipFile(fileobj=source),
    "bzip2": lambda source: _Streams(source, bz2.BZ2Decompressor, b""),
    "xz": lambda source: _Streams(source, lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY), b"\0"),
    "zstd": lambda source: pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd"),
}
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}
MAGIC_BYTES = 10


def compression_of(first_bytes: bytes) -> str | None:
    """Return gzip, bzip2, xz or zstd by the first ``MAGIC_BYTES`` of a stream, or None."""
    return next((name for name, magic in _MAGIC.items() if magic.match(first_bytes)), None)
