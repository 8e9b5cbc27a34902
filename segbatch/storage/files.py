"""All access of sources to files and object stores: URIs, whole objects, seekable streams."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segbatch.errors import Outage, RecordFailure, SourceError
from segbatch.storage.reachable import LocalReader, RemoteReader, is_there
from segbatch.storage.retry import MAX_WHOLE, call, is_transient, retry
from segbatch.storage.uri import split_uri
from segbatch.text import escape_invalid_utf8, redact, redact_text

T = TypeVar("T")
# Whether the store of a URI is there, although reading it fails so.
IsThere = Callable[[str, Exception], bool]

_BLOCK = 8 * 2**20
_FIRST_READ = 32 * 2**20
# Told by the store, and not altered by waiting.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# Two slashes in a row, which stores keep in their keys; not those after a protocol.
EMPTY_SEGMENT = re.compile(r"(?<!:)//")
_CLIENTS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
}


class Files:
    """File systems by URI. Picklable; the options may hold secrets and are never shown."""

    def __init__(
        self,
        storage_options: dict[str, Any] | None = None,
        deadline: float = 60.0,
        local_deadline: float = 5.0,  # a mount that is restarted is back by then
    ) -> None:
        self._options = dict(storage_options or {})
        self._deadline, self._local_deadline = deadline, local_deadline
        self._open: dict[str, Any] = {}

    def __repr__(self) -> str:
        return "Files()"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

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
                if protocol in ("http", "https"):
                    from segbatch.storage.web import WebFileSystem  # its client takes long to import

                    self._open[protocol] = WebFileSystem(**self._options)
                else:
                    options = {} if protocol == "file" else self._options
                    self._open[protocol] = fsspec.filesystem(protocol, **options)
            except ImportError as e:
                client = _CLIENTS.get(protocol)
                remedy = f"pip install {client}" if client else "install the package it names"
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
        """See ``segbatch.storage.retry.call``."""
        return call(fs, method, *args, deadline=self._deadline, size=size, **kwargs)

    def read(self, uri: str, limit: int, size: int | None = None, is_there: IsThere | None = None) -> bytes:
        """A whole object of at most ``limit`` bytes; by one request up to 32 MiB, or if its ``size`` is known.

        Raises ``RecordFailure`` of stage ``read``: MissingObject, UnreadableObject, RecordTooLarge; and ``Outage``
        if it is its store that is away, as ``is_there`` tells (by default its folder or bucket decides).
        """

        def attempt() -> bytes:
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

        try:
            return self._patiently(uri, attempt, is_there or self.is_there)
        except (RecordFailure, Outage):
            raise
        except Exception as e:
            raise unreadable(uri, e) from None

    def is_there(self, uri: str, error: Exception) -> bool:
        """See ``reachable.is_there``. A URI of no store that is known is its record's fault."""
        try:
            fs, path = self.resolve(uri)
        except SourceError:
            return True
        return is_there(fs, path, error)

    def exists(self, uri: str) -> bool:
        """Whether the store tells of an object, by one request."""
        try:
            fs, path = self.resolve(uri)
            fs.invalidate_cache()
            call(fs, "info", path, deadline=0.0)
        except Exception:  # a client of any store raises its own
            return False
        return True

    def _patiently(self, uri: str, attempt: Callable[[], T], is_there: IsThere) -> T:
        """What ``attempt`` returns or raises of the object at ``uri``, while its store is there.

        One that is away is waited for, a local one not as long as a remote one. Then ``Outage`` is raised.
        """
        local = split_uri(uri)[0] == "file"
        deadline = self._local_deadline if local else self._deadline

        def once() -> T:
            try:
                return attempt()
            except RecordFailure:
                raise
            except Exception as e:
                if not is_there(uri, e):
                    raise outage(uri, e) from e
                if not local:
                    raise
            return attempt()  # a disk that was away for an instant is back by now

        return retry(once, deadline, passes=lambda e: isinstance(e, Outage))

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

    def open(self, uri: str, read_ahead: bool = True) -> BinaryIO:
        """A seekable reader that survives transient failures. Raises what the store raises; ``Outage`` if it is away.

        Without ``read_ahead`` exactly the ranges that are asked for are requested: for formats that know.
        """
        fs, path = self.resolve(uri)

        def attempt() -> BinaryIO:
            if isinstance(fs, LocalFileSystem):
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise OSError(errno.EINVAL, "is not a regular file")
                return io.BufferedReader(LocalReader(path, check), 2**20)
            info = self.call(fs, "info", path)
            refuse_unreadable(info)
            remote = RemoteReader(fs, path, int(info["size"]), self._deadline, check)
            return io.BufferedReader(remote, _BLOCK) if read_ahead else remote  # type: ignore[return-value]

        def check(error: Exception) -> None:
            """A shard whose store fails is no error row: it stands for thousands of records."""
            remote = not isinstance(fs, LocalFileSystem)
            if (remote and is_transient(error)) or not self.is_there(uri, error):
                raise outage(uri, error) from error

        return self._patiently(uri, attempt, self.is_there)

    def beginning(self, uri: str, size: int) -> BinaryIO:
        """The first ``size`` bytes of a remote object, by one request; all of a local file, where seeking is cheap."""
        fs, path = self.resolve(uri)
        if isinstance(fs, LocalFileSystem):
            return self.open(uri)
        return io.BytesIO(bytes(self.call(fs, "cat_file", path, start=0, end=size, size=size)))


def refuse_unreadable(info: dict[str, Any]) -> None:
    """Raise ``OSError`` for an object of a web server that cannot be read piece by piece, as shards are."""
    if info["size"] is None:
        raise OSError(
            errno.EINVAL, f"the server does not state its size, and it is above {MAX_WHOLE:,} bytes; download it"
        )
    if info["size"] > MAX_WHOLE and info.get("ranges") is False:
        raise OSError(
            errno.EINVAL,
            f"the server serves no ranges, by which objects above {MAX_WHOLE:,} bytes are read; download it and give "
            "the file",
        )


def _slashes_at_end(text: str) -> int:
    return len(text) - len(text.rstrip("/"))


def shown_uri(uri: str) -> str:
    """``uri`` as rows and messages may show it: redacted, and valid Unicode."""
    return escape_invalid_utf8(redact(uri))


def shown_name(root: str, name: str) -> str:
    """``name``, a URI or relative to the URI ``root``, as ids show it: redacted."""
    if "://" not in root or "://" in name or name.startswith("/"):
        return redact(name)
    root = f"{root.rstrip('/')}/"
    return redact(root + name).removeprefix(redact(root))


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
    """As ``unreadable``, for what a reader of ``Files.open`` raised. An ``Outage`` is raised again:

    it must stop the job, which can then be resumed, and not turn ten thousand records into one error row.
    """
    if isinstance(error, Outage):
        raise error
    return unreadable(uri, error)


def outage(uri: str, error: Exception) -> Outage:
    return Outage(
        f"{shown_uri(uri)}: the store is unavailable ({type(error).__name__}: {brief(error)}): its folder, bucket or "
        "host is away; what is committed is kept: run the job again when it answers"
    )


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
