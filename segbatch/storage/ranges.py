"""An object in a store as a seekable stream of range requests."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

# What a web server without ranges sends of an object is kept up to this size; a larger one is not read in ranges.
MAX_WHOLE_BYTES = 32 * 2**20


class RangeReader(io.RawIOBase):
    """One object as a stream whose every read is one request.

    Args:
        read_range: Reads the bytes from ``begin`` to ``end``, with retries.
        size: Of the object, in bytes.
        translated: Gives a context that raises ``StorageError`` for any exception within.
    """

    def __init__(
        self,
        read_range: Callable[[int, int], bytes],
        size: int,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._read_range, self._size, self._translated, self._at = read_range, size, translated, 0
        self._whole: bytes | None = None  # what a web server sends that ignores ranges, if it is small

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readall(self) -> bytes:
        # Python's own asks for 8 KB at a time, each a request.
        blocks = []
        while self._at < self._size:
            blocks.append(self.read(min(MAX_WHOLE_BYTES, self._size - self._at)))
        return b"".join(blocks)

    def readinto(self, buffer: Any) -> int:
        begin, end = self._at, min(self._at + len(buffer), self._size)
        if begin >= end:
            return 0
        with self._translated():
            data = self._range(begin, end) if self._whole is None else self._whole[begin:end]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _range(self, begin: int, end: int) -> bytes:
        data = self._read_range(begin, end)
        if end - begin < len(data) == self._size <= MAX_WHOLE_BYTES:
            self._whole = data
            return data[begin:end]
        if len(data) > end - begin:
            raise OSError(errno.EINVAL, "the store ignores ranges, so that the object cannot be read piece by piece")
        if not data:
            raise OSError(errno.EINVAL, "the object has become shorter while it was being read")
        return data


def refuse_unreadable(info: dict[str, Any]) -> None:
    """Raise ``OSError`` for an object of a web server that cannot be read by ranges, as shards are."""
    if info["size"] is None:
        raise OSError(
            errno.EINVAL, f"the server does not state its size, and it is above {MAX_WHOLE_BYTES:,} bytes; download it"
        )
    if info["size"] > MAX_WHOLE_BYTES and info.get("ranges") is False:
        raise OSError(
            errno.EINVAL,
            f"the server serves no ranges, by which objects above {MAX_WHOLE_BYTES:,} bytes are read; download it and "
            "give the file",
        )
