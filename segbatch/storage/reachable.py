"""Whether a read that failed is the fault of its object, or its store is away: an unmounted folder, a denied bucket."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from segbatch.causes import causes
from segbatch.storage.retry import RangeReader, call, is_transient

# Of a folder's other objects, so many at most are tried.
_PROBES = 8
# Their servers answer for themselves, whatever is at a path.
_HOSTS = ("http", "https")


def is_there(fs: Any, path: str, error: Exception) -> bool:
    """Whether the store of an object that was there when it was listed still is, although reading it fails so.

    A local file's store is its folder: it is there if another object of it can be read, or none but this one is in it.
    A remote one must tell of the object, or of the folder that it is in.
    """
    if isinstance(fs, LocalFileSystem):
        return _in_folder(path)
    if protocol_of(fs) in _HOSTS and not is_transient(error):
        return True
    subject = path if is_transient(error) else path.rpartition("/")[0]
    if not subject:
        return True
    try:
        fs.invalidate_cache()
        call(fs, "info", subject, deadline=0.0)
    except Exception as e:  # a client of any store raises its own; the one of HTTP hides what failed behind another
        return is_transient(error) and not any(map(is_transient, causes(e)))
    return True


def protocol_of(fs: Any) -> str:
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


def nearest(name: str, names: Sequence[str]) -> Iterator[str]:
    """Some of the other ``names`` in the folder of ``name``, or in the next folder above it that holds any."""
    folder = name
    while folder:
        folder = folder.rpartition("/")[0]
        others = [other for other in names if other != name and other.startswith(f"{folder}/" if folder else "")]
        if others:
            return iter(others[:: -(-len(others) // _PROBES)])
    return iter(())


def _in_folder(path: str) -> bool:
    """An empty folder is what an unmounted disk leaves behind; hidden files may lie in it even so."""
    try:
        with os.scandir(os.path.dirname(path)) as entries:
            others = (e for e in entries if e.path != path and not e.name.startswith("."))
            readable = [_is_readable(entry) for entry in itertools.islice(others, _PROBES)]
    except OSError:
        return False
    return any(readable) if readable else os.path.lexists(path)


def _is_readable(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_file():
            return entry.is_dir()
        with open(entry.path, "rb", buffering=0) as f:
            f.read(1)
    except OSError:
        return False
    return True


class LocalReader(io.FileIO):
    """A local file; ``check`` raises ``Outage`` for an error that is its store's."""

    def __init__(self, path: str, check: Callable[[Exception], None]) -> None:
        super().__init__(path)
        self._check = check

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as e:
            self._check(e)
            raise


class RemoteReader(RangeReader):
    """An object; ``check`` raises ``Outage`` for an error that is its store's."""

    def __init__(self, fs: Any, path: str, size: int, deadline: float, check: Callable[[Exception], None]) -> None:
        super().__init__(fs, path, size, deadline)
        self._check = check

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer)
        except Exception as e:  # a client of any store raises its own
            self._check(e)
            raise
