"""The output folder on any fsspec file system: whole objects only, appearing at once or not at all."""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segbatch.causes import remedy
from segbatch.errors import OutputError, SpecError
from segbatch.storage.file_stat import REPLACED, FileStat, stat_of_file, stat_of_info
from segbatch.storage.retry import RangeReader, answer, call, is_transient, retry
from segbatch.storage.uri import split_uri
from segbatch.text import redact, redact_text

T = TypeVar("T")

TEMPORARY = ".tmp"
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{32}")
_REMOVERS = 16
# Holds the footer of a result file, so that it is read by one request.
_TAIL = 64 * 2**10
# A commit is worth waiting for longer than a read: what was computed for it would be lost.
_WRITE_DEADLINE = 120.0


class Store:
    """Reads, lists and atomically writes objects below one URI. Picklable; holds no connection when pickled.

    ``uri`` is redacted, to be shown. Requests to object stores are tried again after failures
    that pass, for one minute, writes for two.
    """

    def __init__(self, uri: str, storage_options: dict[str, Any] | None = None) -> None:
        self._uri = uri.rstrip("/") or "/"
        self._options = storage_options or {}
        self._connect()

    def _connect(self) -> None:
        self.uri = redact(self._uri)
        try:
            protocol, path = split_uri(self._uri)
            if protocol == "file":  # whose names may hold what fsspec takes for a chain of file systems
                self.fs = LocalFileSystem()
                self.path = os.path.abspath(os.path.expanduser(path))
            else:
                self.fs, self.path = fsspec.core.url_to_fs(self._uri, **self._options)
        except ImportError as e:
            raise SpecError(
                f"output {self.uri}: {e}; for S3 install s3fs, for Google's store gcsfs, for Azure's adlfs"
            ) from None
        except ValueError as e:
            raise SpecError(f"output {self.uri}: {e}") from None
        except TypeError as e:
            raise SpecError(f"output {self.uri}: storage_options that it does not take: {e}") from None
        self.local = isinstance(self.fs, LocalFileSystem)
        if self.local and os.path.exists(self.path) and not os.path.isdir(self.path):
            raise SpecError(f"output {self.uri}: is a file; give a folder")

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_uri": self._uri, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def read(self, name: str) -> bytes:
        """The whole object. Raises ``FileNotFoundError``, or ``OutputError`` for any other failure."""
        try:
            return bytes(call(self.fs, "cat_file", self.full(name)))
        except FileNotFoundError:
            raise
        except Exception as e:
            raise self._failed(name, "cannot be read", e) from e

    def open(self, name: str) -> BinaryIO:
        """A seekable reader that requests the ranges it is asked for. Raises as ``read`` does."""
        try:
            if self.local:
                return open(self.full(name), "rb")
            size = int(call(self.fs, "info", self.full(name))["size"])
        except FileNotFoundError:
            raise
        except Exception as e:
            raise self._failed(name, "cannot be read", e) from e
        return io.BufferedReader(RangeReader(self.fs, self.full(name), size), _TAIL)

    def exists(self, name: str) -> bool:
        try:
            self.fs.invalidate_cache()
            return bool(call(self.fs, "exists", self.full(name)))
        except Exception as e:
            raise self._failed(name, "cannot be looked for", e) from e

    def names(self, folder: str) -> list[str]:
        """Names of the objects directly below ``folder``; an absent folder has none."""
        return [_last(path) for path in self._list(folder, detail=False)]

    def files(self, folder: str) -> dict[str, FileStat]:
        """The same names, with size and tag of each object, by the same listing."""
        if not self.local:
            return {_last(info["name"]): stat_of_info(info) for info in self._list(folder, detail=True)}
        try:
            with os.scandir(self.full(folder)) as entries:
                return {entry.name: stat_of_file(entry.stat()) for entry in entries}
        except FileNotFoundError:  # the folder; or a file that has gone meanwhile
            return {name: stat for name in self.names(folder) if (stat := self._stat(f"{folder}/{name}")) is not None}
        except OSError as e:
            raise self._failed(folder, "cannot be listed", e) from e

    def _stat(self, name: str) -> FileStat | None:
        with suppress(FileNotFoundError):
            return stat_of_file(os.stat(self.full(name)))
        return None

    def _list(self, folder: str, detail: bool) -> list[Any]:
        try:
            self.fs.invalidate_cache()
            found = list(self._patiently(lambda: self.fs.ls(self.full(folder), detail=detail)))
        except FileNotFoundError:
            return []
        except Exception as e:
            raise self._failed(folder, "cannot be listed", e) from e
        self.fs.invalidate_cache()  # s3fs would keep 0.6 KB an object
        return found

    def write(self, name: str, data: bytes) -> str:
        """Publish ``data`` under ``name``, replacing what was there: a reader sees the old or the new, whole.

        Returns the tag that a listing will show, or "" on an object store, which does not tell.

        File systems: a temporary file, flushed to disk, then renamed. Object stores: one PUT or a completed
        multipart upload. Raises ``OutputError``; nothing new is then visible under the name.
        """
        try:
            if self.local:
                return self._replace(name, data)
            call(self.fs, "pipe_file", self.full(name), data, size=len(data), deadline=_WRITE_DEADLINE)
            return ""
        except Exception as e:
            raise self._failed(name, "cannot be written", e, "free space or permissions?") from e

    def create(self, name: str, data: bytes) -> bool:
        """Publish ``data`` under ``name`` if nothing is there; False if another writer was first.

        File systems: a hard link. Object stores: ``If-None-Match``, or where the store does not have it a look
        beforehand, which two writers at the same moment can both pass.
        """
        try:
            if not self.local:
                return self._create_remote(name, data)
            temporary = self._temporary(data)
            try:
                os.makedirs(os.path.dirname(self.full(name)), exist_ok=True)
                os.link(temporary, self.full(name))
            finally:
                temporary.unlink(missing_ok=True)
            return True
        except FileExistsError:
            return False
        except Exception as e:
            raise self._failed(name, "cannot be created", e, "free space or permissions?") from e

    def _create_remote(self, name: str, data: bytes) -> bool:
        path, size = self.full(name), len(data)
        try:
            call(self.fs, "pipe_file", path, data, mode="create", size=size, deadline=_WRITE_DEADLINE)
            return True
        except Exception as e:
            code, status = answer(e)
            if isinstance(e, FileExistsError) or code == "PreconditionFailed" or status == 412:
                # An attempt whose answer was lost may have been this writer's own.
                return self.read(name) == data
            if code != "NotImplemented" and status != 501:
                raise
        if self.exists(name):
            return False
        self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Remove one object, by one request; an absent one is no error. Never a folder with what it holds."""
        try:
            call(self.fs, "rm_file", self.full(name), deadline=_WRITE_DEADLINE)
        except FileNotFoundError:
            pass
        except Exception as e:
            raise self._failed(name, "cannot be removed", e) from e

    def remove_all(self, names: Iterable[str]) -> None:
        """Remove many objects, a few at a time."""
        with ThreadPoolExecutor(_REMOVERS) as pool:
            for _ in pool.map(self.remove, names):
                pass

    def remove_empty(self, folder: str) -> None:
        """Remove a folder of a file system if nothing is in it; object stores have none."""
        if self.local:
            with suppress(OSError):
                os.rmdir(self.full(folder))

    def move(self, name: str, target: str) -> None:
        """Rename an object; one that another run has moved already is no error."""
        try:
            if self.local:
                os.makedirs(os.path.dirname(self.full(target)), exist_ok=True)
                os.replace(self.full(name), self.full(target))
                return
            # Not fs.mv, which lists both sides first.
            call(self.fs, "cp_file", self.full(name), self.full(target), deadline=_WRITE_DEADLINE)
            call(self.fs, "rm_file", self.full(name), deadline=_WRITE_DEADLINE)
        except FileNotFoundError:
            pass
        except Exception as e:
            raise self._failed(name, f"cannot be moved to {target}", e) from e

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """For what is many requests, without a limit of time for one attempt."""
        return attempt() if self.local else retry(attempt)

    def _failed(self, name: str, what: str, error: Exception, hint: str = "") -> OutputError:
        reason = " ".join(redact_text(str(error)).split())[:500] or type(error).__name__
        if is_transient(error) and not self.local:
            hint = "the store is unavailable; committed chunks are kept: run the same command again when it answers"
        else:
            hint = remedy(error) or hint
        return OutputError(f"{self.uri}/{name}: {what}: {reason}{'; ' if hint else ''}{hint}")

    def sweep(self) -> None:
        """Remove what killed writers left half-written. A writer that is still at it notices and goes on."""
        if self.local:
            self.remove_all(f"{TEMPORARY}/{name}" for name in self.names(TEMPORARY) if is_temporary(name))
            self.remove_empty(TEMPORARY)

    def _temporary(self, data: bytes) -> Path:
        path = Path(self.full(TEMPORARY)) / uuid.uuid4().hex
        for attempt in (1, 2):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(path, "wb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                return path
            except FileNotFoundError:  # swept by a run that has just finished
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _replace(self, name: str, data: bytes) -> str:
        target = Path(self.full(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2, 3):
            try:
                temporary = self._temporary(data)
                inode = os.stat(temporary).st_ino
                os.replace(temporary, target)
                found = os.stat(target)
                return stat_of_file(found).tag if found.st_ino == inode else REPLACED
            except FileNotFoundError:  # swept between write and rename
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")


def is_temporary(name: str) -> bool:
    """Whether a file below ``TEMPORARY`` has a name that a ``Store`` gives."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def _last(path: Any) -> str:
    return str(path).rstrip("/").rsplit("/", 1)[-1]
