"""Inputs by URI: an object that cannot be read is an error row, unavailable storage stops the job."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from segbatch.errors import ObjectTooLarge, Outage, RecordFailure, SourceError, StorageError
from segbatch.storage.failures import brief, problem_of
from segbatch.storage.resolve import Resolver
from segbatch.storage.retry import RetryPolicy
from segbatch.storage.uri import split_uri
from segbatch.text import redact

T = TypeVar("T")
# Whether the folder or bucket of a URI is available, although reading it raises an error.
IsReachable = Callable[[str, Exception], bool]

_BLOCK_BYTES = 8 * 2**20
_LOCAL_BLOCK_BYTES = 2**20


class Files:
    """Objects by URI. Picklable; the options may hold secrets and are never displayed."""

    def __init__(self, storage_options: dict[str, Any] | None = None, retry: RetryPolicy | None = None) -> None:
        self._options, self._retry = dict(storage_options or {}), retry or RetryPolicy()
        self.resolve = Resolver(self._options, self._retry)

    def __repr__(self) -> str:
        return "Files()"

    def __getstate__(self) -> dict[str, Any]:
        return {"storage_options": self._options, "retry": self._retry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, uri: str, limit: int, size: int | None = None, is_reachable: IsReachable | None = None) -> bytes:
        """Read a whole object, by one request up to 32 MiB or if its ``size`` is known.

        Args:
            uri: Of the object.
            limit: Most bytes that it may have.
            size: Its size in bytes, if known.
            is_reachable: Whether an error is the object's (by default its folder or bucket decides).

        Raises:
            RecordFailure: Of stage ``read``: MissingObject, UnreadableObject, RecordTooLarge.
            Outage: Its storage is unavailable.
        """

        def attempt() -> bytes:
            storage, name = self.resolve(uri)
            if size is not None and size > limit:
                raise too_large(uri, size, limit)
            try:
                return storage.read(name, limit, size)
            except ObjectTooLarge as e:
                raise too_large(uri, e.size, limit) from None

        try:
            return self._retried(uri, attempt, is_reachable or self.is_reachable)
        except (StorageError, SourceError) as e:
            raise unreadable(uri, e) from None

    def is_reachable(self, uri: str, error: Exception) -> bool:
        """See ``base.Storage``. An unknown protocol is a failure of the record."""
        try:
            storage, name = self.resolve(uri)
        except SourceError:
            return True
        return storage.is_reachable(name, error)

    def has(self, uri: str) -> bool:
        """Return whether storage describes an object, by one request; False if it does not answer."""
        try:
            storage, name = self.resolve(uri)
        except SourceError:
            return False
        return storage.has(name)

    def _retried(self, uri: str, attempt: Callable[[], T], is_reachable: IsReachable) -> T:
        """Return the result of ``attempt`` or raise its error, if the folder or bucket of ``uri`` is available.

        Else it is retried, of a local disk for a shorter time; then ``Outage`` is raised.
        """
        local = split_uri(uri)[0] == "file"
        deadline = self._retry.local_deadline_seconds if local else self._retry.deadline_seconds

        def once() -> T:
            try:
                return attempt()
            except (StorageError, SourceError) as e:
                if not is_reachable(uri, e):
                    raise outage(uri, e) from e
                if not local:
                    raise
            return attempt()  # a disk that was away for a moment may be back

        return self._retry.run(once, deadline, retried=lambda e: isinstance(e, Outage))

    def open(self, uri: str, read_ahead: bool = True) -> BinaryIO:
        """Open an object as a seekable stream.

        Args:
            uri: Of the object.
            read_ahead: False to request exactly the ranges that are asked for, for formats that know them.

        Raises:
            StorageError: It cannot be opened, now or while it is read.
            Outage: Its storage is unavailable.
        """
        storage, name = self.resolve(uri)

        def check(error: StorageError) -> None:
            """Unavailable storage is not an error row of a shard, which stands for thousands of records."""
            if (error.transient and not storage.is_local) or not self.is_reachable(uri, error):
                raise outage(uri, error) from error

        stream = _Checked(self._retried(uri, lambda: storage.open(name, 0), self.is_reachable), check)
        if storage.is_local:
            return io.BufferedReader(stream, _LOCAL_BLOCK_BYTES)
        return io.BufferedReader(stream, _BLOCK_BYTES) if read_ahead else stream  # type: ignore[return-value]

    def beginning(self, uri: str, size: int) -> BinaryIO:
        """Open the first ``size`` bytes of a remote object, by one request, or a whole local file."""
        storage, name = self.resolve(uri)
        return self.open(uri) if storage.is_local else io.BytesIO(storage.read_beginning(name, size))


class _Checked(io.RawIOBase):
    """A stream; ``check`` raises ``Outage`` for an error of its storage, not of the object."""

    def __init__(self, stream: BinaryIO, check: Callable[[StorageError], None]) -> None:
        self._stream, self._check = stream, check

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int | None:
        return self._checked(lambda: self._stream.readinto(buffer))  # type: ignore[attr-defined]

    def readall(self) -> bytes:
        return self._checked(self._stream.read)

    def _checked(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except StorageError as e:
            self._check(e)
            raise


def shown_name(root: str, name: str) -> str:
    """Return ``name``, a URI or a path relative to the URI ``root``, redacted as in ids."""
    if "://" not in root or "://" in name or name.startswith("/"):
        return redact(name)
    root = f"{root.rstrip('/')}/"
    return redact(root + name).removeprefix(redact(root))


def too_large(what: str, size: int, limit: int) -> RecordFailure:
    return RecordFailure(
        "read",
        "RecordTooLarge",
        f"{redact(what)}: {size:,} bytes, more than max_record_bytes = {limit:,}; "
        "raise max_record_bytes if such images are meant",
    )


def unreadable(uri: str, error: Exception) -> RecordFailure:
    """Return the error row of an object that cannot be read: why, in one short line."""
    kind = "MissingObject" if isinstance(error, FileNotFoundError) else "UnreadableObject"
    return RecordFailure("read", kind, f"{redact(uri)}: {problem_of('read', error)}")


def shard_failure(uri: str, error: Exception) -> RecordFailure:
    """Return the error row of a shard for what a reader of ``Files.open`` raised.

    Raises:
        Outage: Storage is unavailable: this must stop the job, which can be resumed, and not replace thousands of
            records by one error row.
    """
    if isinstance(error, Outage):
        raise error
    return unreadable(uri, error)


def outage(uri: str, error: Exception) -> Outage:
    """Return the error that stops the job because the storage of ``uri`` is unavailable."""
    cause = error.__cause__ or error
    return Outage(
        f"{redact(uri)}: the store is unavailable ({type(cause).__name__}: {brief(cause)}): its folder, bucket or "
        "host is away; what is committed is kept: run the job again when it answers"
    )
