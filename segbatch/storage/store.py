"""Storage of an output, whose failures are ``OutputError``."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from segbatch.errors import MissingObject, OutputError, SourceError, SpecError, StorageError
from segbatch.storage.base import ObjectInfo, Storage
from segbatch.storage.failures import translated
from segbatch.storage.local import TEMPORARY, LocalStorage, is_temporary
from segbatch.storage.permissions import refusal
from segbatch.storage.remote import RemoteStorage
from segbatch.storage.retry import RetryPolicy
from segbatch.storage.uri import split_uri
from segbatch.text import BLANK, is_blank, redact

if TYPE_CHECKING:
    from pyarrow import fs

_TRIAL = f"{TEMPORARY}/{'0' * 32}"


class Store:
    """Objects below one URI, see ``base.Storage``. Picklable; ``uri`` is redacted.

    Every method raises ``OutputError``, or ``FileNotFoundError`` where an object must exist and does not.
    """

    def __init__(
        self, uri: str, storage_options: dict[str, Any] | None = None, retry: RetryPolicy | None = None
    ) -> None:
        if is_blank(uri):  # would otherwise name the root of the file system
            raise SpecError(f"output: got {uri!r}; {BLANK}")
        self._storage = _storage(uri.rstrip("/") or "/", storage_options, retry)
        self.uri, self.local = redact(uri.rstrip("/") or "/"), self._storage.is_local

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def refuse_unwritable(self, *folders: str) -> None:
        """Raise ``SpecError`` where permissions or mounts of this machine forbid to write; object stores are not asked.

        Args:
            folders: Those below the root that are written to.
        """
        for folder in ("", *folders) if self.local else ():
            if reason := refusal(os.path.join(self._storage.uri_of(""), folder)):
                raise SpecError(f"output {self.uri}: cannot be written: {redact(reason)}")

    def try_writing(self) -> None:
        """Write an object below ``TEMPORARY`` and remove it. Raises ``OutputError`` where writing is refused."""
        try:
            self.write(_TRIAL, b"")
        except OutputError as e:
            raise OutputError(f"output {self.uri}: cannot be written: {e}", like=e) from e
        with suppress(OutputError):  # objects that a store keeps for a time are written over
            self.remove(_TRIAL)
        self.remove_empty(TEMPORARY)

    def read(self, name: str) -> bytes:
        """Read a whole object."""
        with _of_output():
            return self._storage.read(name)

    def open(self, name: str) -> BinaryIO:
        """Open an object as a seekable stream, whose reads raise ``StorageError``."""
        with _of_output():
            return self._storage.open(name)

    def arrow_file_system(self) -> fs.FileSystem:
        """Return the objects as a file system of Arrow, whose paths begin at the root. It is for reading."""
        from segbatch.storage import arrow

        return arrow.local(self._storage.uri_of("")) if self.local else arrow.remote(self.open)

    def exists(self, name: str) -> bool:
        """Return whether an object or folder has this name."""
        with _of_output():
            return self._storage.exists(name)

    def names(self, folder: str) -> list[str]:
        """List the names of the objects directly below ``folder``; an absent folder has none."""
        with _of_output():
            return self._storage.names(folder)

    def files(self, folder: str) -> dict[str, ObjectInfo]:
        """List the same names with size and tag of each object."""
        with _of_output():
            return {info.name.rstrip("/").rpartition("/")[2]: info for info in self._storage.list(folder)}

    def write(self, name: str, data: bytes) -> str:
        """Write an object, replacing the one of this name; the tag that a listing will show, or ""."""
        with _of_output():
            return self._storage.write(name, data)

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Write an object that may be larger than memory; it appears when the block ends without an exception."""
        with _of_output(), self._storage.stream(name) as f:
            yield f

    def create(self, name: str, data: bytes) -> bool:
        """Write an object if none has this name; False if another writer was first."""
        with _of_output():
            return self._storage.create(name, data)

    def link(self, name: str, file: Path) -> None:
        """Make a symbolic link to a file of this machine, replacing the object of this name; a local store only."""
        path, temporary = (Path(self._storage.uri_of(n)) for n in (name, f"{TEMPORARY}/{uuid.uuid4().hex}"))
        with _of_output(), translated(lambda: f"{self.uri}/{name}", "linked", is_local=True):
            for folder in (path.parent, temporary.parent):
                folder.mkdir(parents=True, exist_ok=True)
            temporary.symlink_to(file)
            temporary.replace(path)

    def remove(self, name: str) -> None:
        """Remove one object, by one request; an absent one is no error."""
        with _of_output():
            self._storage.delete(name)

    def remove_all(self, names: Iterable[str]) -> None:
        """Remove many objects, several at once."""
        with _of_output():
            self._storage.delete(*names)

    def remove_empty(self, folder: str) -> None:
        """Remove a folder of a file system if nothing is in it; object stores have none."""
        self._storage.delete_empty_folder(folder)

    def move(self, name: str, target: str) -> None:
        """Rename an object; one that another run has moved already is no error."""
        with _of_output():
            self._storage.move(name, target)

    def clean_temporary_files(self) -> None:
        """Remove what killed writers left half-written."""
        with _of_output():
            self._storage.clean_temporary_files()


def _storage(uri: str, options: dict[str, Any] | None, retry: RetryPolicy | None) -> Storage:
    try:
        protocol, path = split_uri(uri)
        if protocol != "file":
            return RemoteStorage(uri, options, retry)
    except SourceError as e:
        raise SpecError(f"output {redact(uri)}: {e}") from None
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.exists(path) and not os.path.isdir(path):
        raise SpecError(f"output {redact(uri)}: is a file; give a folder")
    return LocalStorage(path)


@contextmanager
def _of_output() -> Iterator[None]:
    """Raise ``OutputError`` for an error of storage, but for a missing object."""
    try:
        yield
    except MissingObject:
        raise
    except (StorageError, SourceError) as e:
        raise OutputError(str(e), like=e if e.kind == "unavailable" else None) from e


__all__ = ["TEMPORARY", "Store", "is_temporary"]
