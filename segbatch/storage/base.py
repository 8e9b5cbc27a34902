"""The protocol of storage: objects below one root, on a disk, in an object store or on a web server."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

Kind = Literal["file", "folder", "special", "loop", "marker"]
# A buffer that holds the footer of a result file, so that it is read by one request.
TAIL_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object or folder, as a listing shows it.

    Attributes:
        name: Its path, relative to whatever was listed.
        size: In bytes.
        version: Changes when the content does: the size with the store's tag, or with the time of the last change.
        uri: What is read, if not the object of that name.
        kind: ``file``; ``folder``; ``special``: a pipe, socket or device; ``loop``: a link to a folder above it;
            ``marker``: bytes under a key that ends in a slash.
        tag: Changes whenever the object is written, also with the same content and size.
    """

    name: str
    size: int
    version: str
    uri: str = ""
    kind: Kind = "file"
    tag: str = ""


class Storage(Protocol):
    """Objects by their names below one root. Picklable; holds no connection when pickled.

    Every method raises ``StorageError``, of the class ``MissingObject`` if nothing has the name; messages and ``uri``
    are redacted. Requests that fail transiently are retried, see ``RetryPolicy``.

    Attributes:
        uri: The root, redacted.
        is_local: Whether this is a file system of this machine, whose failures do not pass by waiting.
    """

    uri: str
    is_local: bool

    def uri_of(self, name: str) -> str:
        """Return the URI of an object, with what it takes to open it: not to be displayed."""
        ...

    def list(self, prefix: str = "", recursive: bool = False) -> Iterator[ObjectInfo]:
        """List what is directly below the folder ``prefix``, or every object below it; names begin at the root."""
        ...

    def names(self, folder: str) -> builtins.list[str]:
        """List the last parts of the names directly below a folder, without describing them; none if it is absent."""
        ...

    def stat(self, name: str) -> ObjectInfo:
        """Describe one object or folder."""
        ...

    def exists(self, name: str) -> bool:
        """Return whether an object or folder has this name."""
        ...

    def has(self, name: str) -> bool:
        """Return whether storage describes this name, by one request; False if it does not answer."""
        ...

    def is_reachable(self, name: str, error: Exception) -> bool:
        """Return whether the folder or bucket of a listed object is available, although reading it raises ``error``.

        Then the failure is the object's, else that of all objects there: an unmounted disk, a denied bucket.
        """
        ...

    def read(self, name: str, limit: int | None = None, size: int | None = None) -> bytes:
        """Read a whole object, by one request up to 32 MiB or if its ``size`` is known.

        Raises:
            ObjectTooLarge: It has more than ``limit`` bytes.
        """
        ...

    def read_beginning(self, name: str, size: int) -> bytes:
        """Read the first ``size`` bytes of an object, by one request."""
        ...

    def open(self, name: str, buffer_bytes: int = TAIL_BYTES) -> BinaryIO:
        """Open an object as a seekable stream; with 0 ``buffer_bytes`` exactly the ranges asked for are requested."""
        ...

    def write(self, name: str, data: bytes) -> str:
        """Write an object, replacing the one of this name: a reader sees the old or the new, whole.

        Returns:
            The tag that a listing will show; "" for an object store, which does not return one.
        """
        ...

    def stream(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Write an object that may be larger than memory: it appears, whole, when the block ends without an exception.

        It replaces the one of this name.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write an object if none has this name; False if another writer was first."""
        ...

    def move(self, name: str, target: str) -> None:
        """Rename an object; one that another process has moved already is no error."""
        ...

    def delete(self, *names: str) -> None:
        """Delete objects, several at once; an absent one is no error. Never deletes a folder with its content."""
        ...

    def delete_empty_folder(self, name: str) -> None:
        """Delete a folder of a file system if nothing is in it; object stores have no folders."""
        ...

    def clean_temporary_files(self) -> None:
        """Delete what killed writers left half-written. A writer that is still running notices and writes again."""
        ...
