"""All access to files and object stores: URIs, whole objects, seekable streams, and the one retry."""

from __future__ import annotations

import errno
import io
import os
import random
import stat
import time
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segbatch.errors import RecordFailure, SourceError
from segbatch.sources.chunking import clean
from segbatch.spec import without_credentials

T = TypeVar("T")

_BLOCK = 8 * 2**20
_FIRST_READ = 32 * 2**20
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_TRANSIENT_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,  # what s3fs makes of SlowDown and ServiceUnavailable
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,  # what s3fs makes of InternalError
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
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
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}
_TRANSIENT_WORDS = ("slow down", "slowdown", "reduce your request rate", "service unavailable", "internal error")
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: timeouts, broken connections, 429 and 5xx."""
    if isinstance(error, _PERMANENT):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if any(base.__name__ in _TRANSIENT_NAMES for base in type(error).__mro__):
        return True
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    codes = (metadata.get("HTTPStatusCode"), getattr(error, "status", None), getattr(error, "code", None))
    if any(str(code).isdigit() and int(str(code)) in _TRANSIENT_STATUS for code in codes if code is not None):
        return True
    if not isinstance(error, OSError):
        return False
    text = str(error).lower()
    return error.errno in _TRANSIENT_ERRNO or any(word in text for word in _TRANSIENT_WORDS)


def retry(
    call: Callable[[], T],
    deadline: float = 60.0,
    first_wait: float = 0.25,
    longest_wait: float = 15.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What ``call`` returns, tried again after transient failures for up to ``deadline`` seconds.

    Waits double from ``first_wait`` and are drawn between nothing and that ("full jitter"), so that a
    thousand readers which met one outage do not come back as one. The last error is raised as it is.
    """
    begun, wait = clock(), first_wait
    while True:
        try:
            return call()
        except Exception as e:
            pause = random.uniform(0, wait)
            if not is_transient(e) or clock() - begun + pause > deadline:
                raise
        sleep(pause)
        wait = min(wait * 2, longest_wait)


def split_uri(uri: str) -> tuple[str, str]:
    """(protocol, rest): ``file`` for local paths; ``file://`` is taken off, ``#`` and ``%`` are plain characters."""
    protocol, mark, rest = uri.partition("://")
    if not mark or not protocol.replace("+", "").replace("-", "").replace(".", "").isalnum():
        return "file", uri
    if protocol.lower() in ("file", "local"):
        return "file", rest
    return protocol.lower(), rest


class Files:
    """File systems by URI. Picklable; the options may hold secrets and are never shown."""

    def __init__(self, storage_options: dict[str, Any] | None = None, deadline: float = 60.0) -> None:
        self._options = dict(storage_options or {})
        self._deadline = deadline
        self._open: dict[str, Any] = {}

    def __repr__(self) -> str:
        return "Files()"

    def __getstate__(self) -> dict[str, Any]:
        return {"_options": self._options, "_deadline": self._deadline, "_open": {}}

    def resolve(self, uri: str) -> tuple[Any, str]:
        """(file system, path in it). Raises ``SourceError`` for a protocol that is unknown or not installed."""
        protocol, rest = split_uri(uri)
        if protocol == "file":
            return self._system("file"), os.path.abspath(os.path.expanduser(rest))
        fs = self._system(protocol)
        return fs, str(fs._strip_protocol(uri))

    def _system(self, protocol: str) -> Any:
        if protocol not in self._open:
            try:
                options = {} if protocol == "file" else self._options
                self._open[protocol] = fsspec.filesystem(protocol, **options)
            except ImportError as e:
                extra = _EXTRAS.get(protocol)
                remedy = f"pip install 'segbatch[{extra}]'" if extra else "install the package it names"
                raise SourceError(f"{protocol}:// needs a package that is not installed ({e}); {remedy}") from None
            except ValueError as e:
                raise SourceError(
                    f"{protocol}:// is not a protocol that fsspec knows, or its storage options are wrong "
                    f"({_brief(e)}); s3, gs, az, hf, https and local paths are usual"
                ) from None
            except TypeError as e:
                raise SourceError(f"storage options that {protocol}:// does not take: {_brief(e)}") from None
        return self._open[protocol]

    def retry(self, fs: Any, call: Callable[[], T]) -> T:
        """``call``, tried again if its store is remote: a local disk's errors do not pass by waiting."""
        return call() if isinstance(fs, LocalFileSystem) else retry(call, self._deadline)

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        """A whole object of at most ``limit`` bytes; ``size`` if known saves a request.

        Raises ``RecordFailure`` of stage ``read``: MissingObject, UnreadableObject, RecordTooLarge.
        """
        try:
            fs, path = self.resolve(uri)
            if size is not None and size > limit:
                raise too_large(uri, size, limit)
            if isinstance(fs, LocalFileSystem):
                return _read_local(uri, path, limit)
            if size is not None:
                return bytes(self.retry(fs, lambda: fs.cat_file(path)))
            return self.retry(fs, lambda: _read_remote(fs, uri, path, limit))
        except RecordFailure:
            raise
        except Exception as e:
            raise unreadable(uri, e) from None

    def open(self, uri: str, read_ahead: bool = True) -> BinaryIO:
        """A seekable reader that survives transient failures. Raises what the store raises.

        Without ``read_ahead`` exactly the ranges that are asked for are requested: for formats that know.
        """
        fs, path = self.resolve(uri)
        if isinstance(fs, LocalFileSystem):
            found = os.stat(path).st_mode
            if not stat.S_ISREG(found):
                raise OSError(errno.EINVAL, "is not a regular file")
            return open(path, "rb", buffering=2**20)
        remote = _Remote(self, fs, path, int(self.retry(fs, lambda: fs.info(path))["size"]))
        return io.BufferedReader(remote, _BLOCK) if read_ahead else remote  # type: ignore[return-value]


class _Remote(io.RawIOBase):
    """One object as a seekable file whose reads are range requests with retries."""

    def __init__(self, files: Files, fs: Any, path: str, size: int) -> None:
        self._files, self._fs, self._path, self._size, self._at = files, fs, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        begin, end = self._at, min(self._at + len(buffer), self._size)
        if begin >= end:
            return 0
        data = self._files.retry(self._fs, lambda: self._fs.cat_file(self._path, start=begin, end=end))
        if len(data) > end - begin:
            raise OSError(errno.EINVAL, "the store ignores ranges, so that the object cannot be read piece by piece")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def shown_uri(uri: str) -> str:
    """``uri`` as rows and messages may show it: valid Unicode, without user and password."""
    return clean(without_credentials(uri))


def too_large(what: str, size: int, limit: int) -> RecordFailure:
    return RecordFailure(
        "read",
        "RecordTooLarge",
        f"{shown_uri(what)}: {size:,} bytes, more than max_record_bytes = {limit:,}; "
        "raise max_record_bytes if such images are meant",
    )


def unreadable(uri: str, error: Exception) -> RecordFailure:
    """Why an object could not be read, in one short line."""
    shown = shown_uri(uri)
    if isinstance(error, FileNotFoundError):
        return RecordFailure("read", "MissingObject", f"{shown}: does not exist")
    if isinstance(error, PermissionError):
        return RecordFailure("read", "UnreadableObject", f"{shown}: access is denied ({_brief(error)})")
    if isinstance(error, IsADirectoryError):
        return RecordFailure("read", "UnreadableObject", f"{shown}: is a folder, where one file must be named")
    return RecordFailure(
        "read", "UnreadableObject", f"{shown}: cannot be read ({type(error).__name__}: {_brief(error)})"
    )


def shard_failure(uri: str, error: Exception) -> RecordFailure:
    """As ``unreadable``, for a whole shard. Raises ``SourceError`` instead if it may be readable later:

    an outage must stop the job, which can then be resumed, and not turn ten thousand records into one error row.
    """
    if is_transient(error):
        raise SourceError(
            f"{shown_uri(uri)}: the store keeps failing ({type(error).__name__}: {_brief(error)}); "
            "what is committed is kept: run the job again when it answers"
        ) from error
    return unreadable(uri, error)


def version_of(info: dict[str, Any]) -> str:
    """Changes when the object's content does: its size with the store's tag, or with its time of change."""
    for name in ("ETag", "etag", "md5Hash", "md5", "content_md5", "generation", "blob_id", "oid", "sha256", "crc32c"):
        if info.get(name):
            return f"{info['size']}:{_text(info[name])}"
    if "mtime_ns" in info:
        return f"{info['size']}:{info['mtime_ns']}"
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if info.get(name):
            return f"{info['size']}:{_text(info[name])}"
    return f"{info['size']}"


def local_info(path: str) -> dict[str, Any]:
    """What ``info`` of a remote store tells, for a local file, with the time of change in nanoseconds."""
    found = os.stat(path)
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
    return {"name": path, "size": found.st_size, "type": kind, "mtime_ns": found.st_mtime_ns}


def infos(files: Files, fs: Any, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the store tells of each of ``paths`` that exists; neighbours are looked up in one listing."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.rpartition("/")[0], []).append(path)
    found: dict[str, dict[str, Any]] = {}
    for parent, group in groups.items():
        if isinstance(fs, LocalFileSystem):
            found.update({p: local_info(p) for p in group if os.path.exists(p)})
            continue
        if len(group) > 8:
            try:
                there = {str(i["name"]): i for i in files.retry(fs, lambda parent=parent: fs.ls(parent, detail=True))}  # type: ignore[misc]
            except FileNotFoundError:
                continue
            found.update({p: there[p] for p in group if p in there})
            continue
        for path in group:
            try:
                found[path] = files.retry(fs, lambda path=path: fs.info(path))  # type: ignore[misc]
            except FileNotFoundError:
                continue
    return found


def _read_local(uri: str, path: str, limit: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as f:  # opening a pipe must not wait for its writer
        found = os.fstat(f.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        if found.st_size > limit:
            raise too_large(uri, found.st_size, limit)
        return f.read(limit)


def _read_remote(fs: Any, uri: str, path: str, limit: int) -> bytes:
    """One request for most objects; the size is asked for only if the first read does not reach the end."""
    first = min(limit, _FIRST_READ)
    try:
        data = bytes(fs.cat_file(path, start=0, end=first + 1))
    except Exception as e:
        # Stores answer a range of an empty object with an error.
        if isinstance(e, _PERMANENT) or is_transient(e) or fs.info(path)["size"] != 0:
            raise
        return b""
    if len(data) <= first:
        return data
    size = int(fs.info(path)["size"])
    if size > limit:
        raise too_large(uri, size, limit)
    return data + bytes(fs.cat_file(path, start=len(data), end=size)) if size > len(data) else data


def _brief(error: BaseException) -> str:
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return text[:200] or type(error).__name__


def _text(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
