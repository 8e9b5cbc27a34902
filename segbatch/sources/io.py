"""All access of sources to files and object stores: URIs, whole objects, seekable streams."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segbatch.errors import Outage, RecordFailure, SourceError
from segbatch.retry import RangeReader, call, is_transient, retry
from segbatch.sources.chunking import clean
from segbatch.text import redact, redact_text, without_query

T = TypeVar("T")

_BLOCK = 8 * 2**20
_FIRST_READ = 32 * 2**20
# Told by the store, and not altered by waiting.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# Two slashes in a row, which stores keep in their keys; not those after a protocol.
EMPTY_SEGMENT = re.compile(r"(?<!:)//")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}


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
        """(file system, path in it). Raises ``SourceError`` for a protocol that is unknown or not installed.

        Local paths are normalized. Keys of stores stay as they are, with empty parts: of slashes at the end of a folder
        only one is dropped, ``s3://bucket/in//`` is the folder of ``bucket/in//x``.
        """
        protocol, rest = split_uri(uri)
        if protocol == "file":
            path = os.path.abspath(os.path.expanduser(rest))
            return self._system("file"), f"/{path.lstrip('/')}"  # abspath keeps two slashes at the beginning
        fs = self._system(protocol)
        path = str(fs._strip_protocol(f"{protocol}://{rest}"))
        dropped = _slashes_at_end(rest) - _slashes_at_end(path)
        return fs, path + "/" * (dropped - 1)

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
                    f"({brief(e)}); s3, gs, az, hf, https and local paths are usual"
                ) from None
            except TypeError as e:
                raise SourceError(f"storage options that {protocol}:// does not take: {brief(e)}") from None
        return self._open[protocol]

    def retry(self, fs: Any, attempt: Callable[[], T]) -> T:
        """``attempt``, tried again if its store is remote: a local disk's errors do not pass by waiting."""
        return attempt() if isinstance(fs, LocalFileSystem) else retry(attempt, self._deadline)

    def call(self, fs: Any, method: str, *args: Any, size: int = 0, **kwargs: Any) -> Any:
        """See ``segbatch.retry.call``."""
        return call(fs, method, *args, deadline=self._deadline, size=size, **kwargs)

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        """A whole object of at most ``limit`` bytes; by one request up to 32 MiB, or if its ``size`` is known.

        Raises ``RecordFailure`` of stage ``read``: MissingObject, UnreadableObject, RecordTooLarge; and ``Outage``
        if nothing can be learnt of the object either, so that it is the store that fails.
        """
        try:
            fs, path = self.resolve(uri)
            if size is not None and size > limit:
                raise too_large(uri, size, limit)
            if isinstance(fs, LocalFileSystem):
                return _read_local(uri, path, limit)
            if size is not None:
                # A range, since s3fs asks for the size of what is read whole; a byte more shows that it has grown.
                data = bytes(self.call(fs, "cat_file", path, start=0, end=size + 1, size=size)) if size else b""
                if len(data) == size:
                    return data
            return self._read_remote(fs, uri, path, limit)
        except RecordFailure:
            raise
        except Exception as e:
            if is_transient(e) and not self._answers(uri):
                raise outage(uri, e) from e
            raise unreadable(uri, e) from None

    def _read_remote(self, fs: Any, uri: str, path: str, limit: int) -> bytes:
        """One request for most objects; the size is asked for only if the first read does not reach the end."""
        first = min(limit, _FIRST_READ)
        try:
            data = bytes(self.call(fs, "cat_file", path, start=0, end=first + 1, size=first))
        except Exception as e:
            # Stores answer a range of an empty object with an error.
            if isinstance(e, _PERMANENT) or is_transient(e) or self.call(fs, "info", path)["size"] != 0:
                raise
            return b""
        if len(data) <= first:
            return data
        size = int(self.call(fs, "info", path)["size"])
        if size > limit:
            raise too_large(uri, size, limit)
        if size <= len(data):
            return data
        return data + bytes(self.call(fs, "cat_file", path, start=len(data), end=size, size=size))

    def _answers(self, uri: str) -> bool:
        """Whether the store tells of an object whose bytes it does not give."""
        try:
            fs, path = self.resolve(uri)
            fs.invalidate_cache()
            call(fs, "info", path, deadline=0.0)
        except Exception as e:
            return not is_transient(e)
        return True

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
        remote = RangeReader(fs, path, int(self.call(fs, "info", path)["size"]), self._deadline)
        return io.BufferedReader(remote, _BLOCK) if read_ahead else remote  # type: ignore[return-value]

    def beginning(self, uri: str, size: int) -> BinaryIO:
        """The first ``size`` bytes of a remote object, by one request; all of a local file, where seeking is cheap."""
        fs, path = self.resolve(uri)
        if isinstance(fs, LocalFileSystem):
            return self.open(uri)
        return io.BytesIO(bytes(self.call(fs, "cat_file", path, start=0, end=size, size=size)))


def _slashes_at_end(text: str) -> int:
    return len(text) - len(text.rstrip("/"))


def shown_uri(uri: str) -> str:
    """``uri`` as rows and messages may show it: redacted, and valid Unicode."""
    return clean(redact(uri))


def shown_name(root: str, name: str) -> str:
    """``name``, a URI or relative to the URI ``root``, as ids show it: redacted."""
    if "://" not in root or "://" in name or name.startswith("/"):
        return redact(name)
    root = f"{root.rstrip('/')}/"
    return redact(root + name).removeprefix(redact(root))


def folder_of(uri: str) -> str:
    """The URI of the folder that an object is in."""
    return without_query(uri).rpartition("/")[0]


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
        return RecordFailure("read", "UnreadableObject", f"{shown}: access is denied ({brief(error)})")
    if isinstance(error, IsADirectoryError):
        return RecordFailure("read", "UnreadableObject", f"{shown}: is a folder, where one file must be named")
    return RecordFailure(
        "read", "UnreadableObject", f"{shown}: cannot be read ({type(error).__name__}: {brief(error)})"
    )


def shard_failure(uri: str, error: Exception) -> RecordFailure:
    """As ``unreadable``, for a whole shard. Raises ``Outage`` instead if it may be readable later:

    an outage must stop the job, which can then be resumed, and not turn ten thousand records into one error row.
    """
    if is_transient(error):
        raise outage(uri, error) from error
    return unreadable(uri, error)


def outage(uri: str, error: Exception) -> Outage:
    return Outage(
        f"{shown_uri(uri)}: the store keeps failing ({type(error).__name__}: {brief(error)}); "
        "what is committed is kept: run the job again when it answers"
    )


def version_of(info: dict[str, Any]) -> str:
    """Changes when the object's content does: its size with the store's tag, or with its time of change."""
    for name in (
        "ETag",
        "etag",
        "md5Hash",
        "md5",
        "content_md5",
        "Content-MD5",
        "generation",
        "blob_id",
        "oid",
        "sha256",
        "crc32c",
    ):
        if info.get(name):
            return f"{info['size']}:{_text(info[name])}"
    if "mtime_ns" in info:
        return f"{info['size']}:{info['mtime_ns']}"
    for name in ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created"):
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
        if len(group) > 8 and not EMPTY_SEGMENT.search(f"{parent}/"):  # which a client's ls drops
            try:
                there = {str(i["name"]): i for i in files.retry(fs, lambda parent=parent: fs.ls(parent, detail=True))}  # type: ignore[misc]
            except FileNotFoundError:
                continue
            found.update({p: there[p] for p in group if p in there})
            continue
        for path in group:
            try:
                found[path] = files.call(fs, "info", path)
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


def brief(error: BaseException) -> str:
    """What an exception says, on one short line, redacted."""
    text = " ".join(redact_text(getattr(error, "strerror", None) or str(error)).split())
    return text[:200] or type(error).__name__


def _text(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
