"""Patience with object stores: which failures pass by waiting, the one retry, and files that use it."""

from __future__ import annotations

import errno
import inspect
import io
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

T = TypeVar("T")

# One attempt may take this long, and a second more for each of these bytes: a connection that hangs is given up.
_ATTEMPT = 20.0
_BYTES_A_SECOND = 2**20
# What a web server without ranges sends of an object is kept up to this size; a larger one is not read in pieces.
MAX_WHOLE = 32 * 2**20

_TRANSIENT_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,  # what s3fs makes of SlowDown and ServiceUnavailable
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,  # what s3fs makes of a code that it does not know
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,  # a FUSE mount whose server has died
    errno.EPIPE,
    errno.EREMOTEIO,  # what s3fs makes of InternalError
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# 409: another conditional or conflicting operation on the same object has not ended.
_TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
# S3's codes for what the network did to a request, although their status is 400.
_TRANSIENT_CODES = {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}
# Clients' own exceptions, by name: none of their packages is a dependency.
_TRANSIENT_NAMES = {
    "ClientConnectionError",
    "ClientConnectorError",
    "ClientOSError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseParserError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}
_TRANSIENT_WORDS = ("slow down", "slowdown", "reduce your request rate", "service unavailable", "internal error")
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: timeouts, broken connections, 409, 429 and 5xx."""
    if isinstance(error, _PERMANENT):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if any(base.__name__ in _TRANSIENT_NAMES for base in type(error).__mro__):
        return True
    code, status = answer(error)
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return True
    if not isinstance(error, OSError) or (status is not None and 400 <= status < 500):
        return False
    text = str(error).lower()
    return error.errno in _TRANSIENT_ERRNO or any(word in text for word in _TRANSIENT_WORDS)


def answer(error: BaseException) -> tuple[str | None, int | None]:
    """(the store's error code, the HTTP status) behind an exception of a client, as far as it tells them."""
    for e in (error, error.__cause__):
        response = getattr(e, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return response.get("Error", {}).get("Code"), status if isinstance(status, int) else None
        for name in ("status", "code"):
            given = getattr(e, name, None)
            if given is not None and str(given).isdigit():
                return None, int(str(given))
    return None, None


def retry(
    call: Callable[[], T],
    deadline: float = 60.0,
    first_wait: float = 0.25,
    longest_wait: float = 15.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    *,
    passes: Callable[[BaseException], bool] = is_transient,
) -> T:
    """What ``call`` returns, tried again for up to ``deadline`` seconds after failures that may pass by waiting.

    Waits double from ``first_wait`` and are drawn between nothing and that ("full jitter"), so that a
    thousand readers which met one outage do not come back as one. The last error is raised as it is.
    """
    begun, wait = clock(), first_wait
    while True:
        try:
            return call()
        except Exception as e:
            pause = random.uniform(0, wait)
            if not passes(e) or clock() - begun + pause > deadline:
                raise
        sleep(pause)
        wait = min(wait * 2, longest_wait)


def call(fs: Any, method: str, *args: Any, deadline: float = 60.0, size: int = 0, **kwargs: Any) -> Any:
    """``fs.method(*args, **kwargs)`` on an fsspec file system, with patience if it is remote.

    An attempt that hangs is given up, where the client is asynchronous (s3, gs, az, http), and tried again as
    ``retry`` does; both limits grow with ``size``, the bytes that are moved. A local disk's errors do not pass by
    waiting, and are raised at once.
    """
    bound = getattr(fs, method)
    if isinstance(fs, LocalFileSystem):
        return bound(*args, **kwargs)
    more = size / _BYTES_A_SECOND
    # fsspec's bridge to its event loop takes a timeout and cancels what runs into it.
    if inspect.iscoroutinefunction(getattr(bound, "__wrapped__", None)):
        kwargs["timeout"] = _ATTEMPT + more
    return retry(lambda: bound(*args, **kwargs), deadline + more)


class RangeReader(io.RawIOBase):
    """One remote object of ``size`` bytes as a seekable file whose reads are range requests with retries."""

    def __init__(self, fs: Any, path: str, size: int, deadline: float = 60.0) -> None:
        self._fs, self._path, self._size, self._deadline, self._at = fs, path, size, deadline, 0
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
            blocks.append(self.read(min(MAX_WHOLE, self._size - self._at)))
        return b"".join(blocks)

    def readinto(self, buffer: Any) -> int:
        begin, end = self._at, min(self._at + len(buffer), self._size)
        if begin >= end:
            return 0
        data = self._range(begin, end) if self._whole is None else self._whole[begin:end]
        if len(data) > end - begin:
            raise OSError(errno.EINVAL, "the store ignores ranges, so that the object cannot be read piece by piece")
        if not data:
            raise OSError(errno.EINVAL, "the object has become shorter while it was being read")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _range(self, begin: int, end: int) -> bytes:
        size = end - begin
        data = bytes(call(self._fs, "cat_file", self._path, start=begin, end=end, size=size, deadline=self._deadline))
        if size < len(data) == self._size <= MAX_WHOLE:
            self._whole = data
            return data[begin:end]
        return data
