"""Storage on a file system of this machine: atomic by rename, exclusive by hard link."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from segbatch.errors import MissingObject, ObjectTooLarge
from segbatch.storage.base import TAIL_BYTES, Kind, ObjectInfo
from segbatch.storage.failures import translated
from segbatch.storage.fetch import for_each
from segbatch.storage.hidden import hidden_reason
from segbatch.text import redact

TEMPORARY = ".tmp"
# The tag of a file that another writer has replaced at once: no listing shows it.
REPLACED = "replaced"
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{32}")
# Maximum number of a folder's other files that are tried.
_PROBES = 8


class LocalStorage:
    """Files below the folder ``root``, or by their absolute paths below ``""``; see ``base.Storage``."""

    is_local = True

    def __init__(self, root: str = "") -> None:
        self._root = root
        self.uri = redact(root)

    def __repr__(self) -> str:
        return f"LocalStorage({self.uri!r})"

    def uri_of(self, name: str) -> str:
        return self._path(name) or "/"

    def list(self, prefix: str = "", recursive: bool = False) -> Iterator[ObjectInfo]:
        """See ``base.Storage``. Links to folders are followed, unless they lead back into a folder above them.

        A hidden folder that cannot be listed, such as ``lost+found``, is described instead of its content.
        """
        with self._translated(prefix, "listed"):
            try:
                yield from self._list(prefix, recursive, frozenset())
            except FileNotFoundError:
                if recursive:
                    raise

    def _list(self, folder: str, recursive: bool, within: frozenset[tuple[int, int]]) -> Iterator[ObjectInfo]:
        path = self._path(folder) or "/"
        try:
            status, names = os.stat(path), os.listdir(path)
        except OSError:
            if hidden_reason(folder) is None:
                raise
            yield ObjectInfo(f"{folder}/", 0, "")
            return
        if (status.st_dev, status.st_ino) in within:
            yield ObjectInfo(f"{folder}/", 0, "", kind="loop")
            return
        within |= {(status.st_dev, status.st_ino)}
        for name in names:
            below = f"{folder.rstrip('/')}/{name}" if folder else name
            info = self._described(below)
            if recursive and info is not None and info.kind == "folder":
                yield from self._list(below, recursive, within)
            elif info is not None:
                yield info

    def _described(self, name: str) -> ObjectInfo | None:
        try:
            return _info(name, os.stat(self._path(name)))
        except OSError:
            # A broken link is a record that cannot be read; a file that was removed since the listing is not a record.
            return ObjectInfo(name, 0, "missing") if os.path.lexists(self._path(name)) else None

    def names(self, folder: str) -> builtins.list[str]:
        with suppress(MissingObject), self._translated(folder, "listed"):
            return os.listdir(self._path(folder))
        return []

    def stat(self, name: str) -> ObjectInfo:
        with self._translated(name, "read"):
            return _info(name, os.stat(self._path(name) or "/"))

    def exists(self, name: str) -> bool:
        """See ``base.Storage``. Also a broken link exists."""
        return os.path.lexists(self._path(name) or "/")

    def has(self, name: str) -> bool:
        return os.path.exists(self._path(name) or "/")  # but not a link to a disk that is away

    def is_reachable(self, name: str, error: Exception) -> bool:
        """See ``base.Storage``. A folder is reachable if another file of it can be read, or only this one is in it.

        An unmounted disk leaves an empty folder behind, which may contain hidden files.
        """
        path = self._path(name)
        try:
            with os.scandir(os.path.dirname(path)) as entries:
                others = (e for e in entries if e.path != path and not e.name.startswith("."))
                readable = [_is_readable(entry) for entry in itertools.islice(others, _PROBES)]
        except OSError:
            return False
        return any(readable) if readable else os.path.lexists(path)

    def read(self, name: str, limit: int | None = None, size: int | None = None) -> bytes:
        # Opening a pipe must not wait for its writer.
        flags = os.O_RDONLY | os.O_NONBLOCK
        with self._translated(name, "read"), open(os.open(self._path(name), flags), "rb") as f:
            status = os.fstat(f.fileno())
            _refuse_other_than_file(status)
            if limit is None:
                return f.read()
            if status.st_size > limit:
                error = ObjectTooLarge(f"{self._shown(name)}: {status.st_size:,} bytes")
                error.size = status.st_size
                raise error
            return f.read(limit)

    def read_beginning(self, name: str, size: int) -> bytes:
        with self.open(name) as stream:
            return stream.read(size)

    def open(self, name: str, buffer_bytes: int = TAIL_BYTES) -> BinaryIO:
        with self._translated(name, "read"):
            _refuse_other_than_file(os.stat(self._path(name)))
            stream = _Stream(self, name, self._path(name))
            return io.BufferedReader(stream, buffer_bytes) if buffer_bytes else stream

    def write(self, name: str, data: bytes) -> str:
        """See ``base.Storage``. A temporary file, flushed to disk, then renamed."""
        with self._translated(name, "written"):
            return self._replace(name, data)

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        temporary, target = Path(self._path(TEMPORARY)) / uuid.uuid4().hex, Path(self._path(name))
        with self._translated(name, "written"):
            for folder in (temporary.parent, target.parent):
                folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with open(descriptor, "wb") as f:
                try:
                    yield f
                except OSError:  # a full disk; other exceptions are the caller's
                    with self._translated(name, "written"):
                        raise
                with self._translated(name, "written"):
                    f.flush()
                    os.fsync(f.fileno())
                    os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        """See ``base.Storage``. By a hard link."""
        with self._translated(name, "created"):
            temporary = self._write_temporary(data)
            try:
                os.makedirs(os.path.dirname(self._path(name)), exist_ok=True)
                os.link(temporary, self._path(name))
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            return True

    def move(self, name: str, target: str) -> None:
        with suppress(MissingObject), self._translated(name, f"moved to {target}"):
            os.makedirs(os.path.dirname(self._path(target)), exist_ok=True)
            os.replace(self._path(name), self._path(target))

    def delete(self, *names: str) -> None:
        for_each(self._delete, names)

    def _delete(self, name: str) -> None:
        with suppress(MissingObject), self._translated(name, "removed"):
            os.remove(self._path(name))

    def delete_empty_folder(self, name: str) -> None:
        with suppress(OSError):
            os.rmdir(self._path(name))

    def clean_temporary_files(self) -> None:
        self.delete(*(f"{TEMPORARY}/{name}" for name in self.names(TEMPORARY) if is_temporary(name)))
        self.delete_empty_folder(TEMPORARY)

    def _path(self, name: str) -> str:
        if not self._root:
            return name
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _shown(self, name: str) -> str:
        return redact(self._path(name))

    def _translated(self, name: str, action: str) -> AbstractContextManager[None]:
        return translated(lambda: self._shown(name), action, is_local=True)

    def _write_temporary(self, data: bytes) -> Path:
        path = Path(self._path(TEMPORARY)) / uuid.uuid4().hex
        for attempt in (1, 2):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(path, "wb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                return path
            except FileNotFoundError:  # cleaned by a run that has just finished
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _replace(self, name: str, data: bytes) -> str:
        target = Path(self._path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2, 3):
            try:
                temporary = self._write_temporary(data)
                inode = os.stat(temporary).st_ino
                os.replace(temporary, target)
                status = os.stat(target)
                return _tag(status) if status.st_ino == inode else REPLACED
            except FileNotFoundError:  # cleaned between write and rename
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")


class _Stream(io.FileIO):
    """A file whose read errors are those of storage."""

    def __init__(self, storage: LocalStorage, name: str, path: str) -> None:
        super().__init__(path)
        self._storage, self._name = storage, name

    def readinto(self, buffer: Any) -> int | None:
        with self._storage._translated(self._name, "read"):
            return super().readinto(buffer)


def is_temporary(name: str) -> bool:
    """Return whether a file below ``TEMPORARY`` has a name that a writer gives."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    kind: Kind = "folder" if stat.S_ISDIR(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else "special"
    return ObjectInfo(name, status.st_size, f"{status.st_size}:{status.st_mtime_ns}", "", kind, _tag(status))


def _tag(status: os.stat_result) -> str:
    # The time of change too: whoever damages a file may leave its time of modification as it was.
    return f"{status.st_mtime_ns}:{status.st_ctime_ns}"


def _refuse_other_than_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")


def _is_readable(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_file():
            return entry.is_dir()
        with open(entry.path, "rb", buffering=0) as f:
            f.read(1)
    except OSError:
        return False
    return True
