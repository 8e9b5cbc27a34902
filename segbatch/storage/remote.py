"""Storage behind any client that fsspec knows: object stores, web servers, memory."""

from __future__ import annotations

import builtins
import inspect
import io
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, cast

from segbatch.causes import causes
from segbatch.errors import MissingObject, ObjectTooLarge, SourceError, StorageError
from segbatch.storage.base import TAIL_BYTES, ObjectInfo
from segbatch.storage.clients import WEB, connect
from segbatch.storage.failures import is_transient, status_of, translated
from segbatch.storage.fetch import for_each
from segbatch.storage.objects import EMPTY_SEGMENT, described
from segbatch.storage.ranges import RangeReader, refuse_unreadable
from segbatch.storage.retry import RetryPolicy
from segbatch.text import redact

FIRST_READ_BYTES = 32 * 2**20


class RemoteStorage:
    """Objects below ``root`` on a file system of fsspec; see ``base.Storage``.

    Args:
        root: ``s3://bucket/folder``, or a protocol alone: ``s3://``.
        options: Passed to the client; they may hold secrets and are never displayed.
        retry: How long and how often transient failures are retried.

    Raises:
        SourceError: The protocol is unknown, its package is not installed, or it does not take these options.
    """

    is_local = False

    def __init__(self, root: str, options: dict[str, Any] | None = None, retry: RetryPolicy | None = None) -> None:
        self._root, self._options, self._retry = root, dict(options or {}), retry or RetryPolicy()
        self._connect()

    def _connect(self) -> None:
        self.uri = redact(self._root)
        self._protocol = self._root.partition("://")[0].lower()
        self._fs, self._prefix = connect(self._root, self._options)

    def __repr__(self) -> str:
        return f"RemoteStorage({self.uri!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_options": self._options, "_retry": self._retry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def name_of(self, location: str) -> str:
        """Return the name of an object by what follows the protocol in its URI, for a root that is a protocol.

        Keys of stores are unchanged, with empty parts: of slashes at the end of a folder only one is dropped, so that
        ``s3://bucket/in//`` is the folder of ``bucket/in//x``.
        """
        path = str(self._fs._strip_protocol(f"{self._protocol}://{location}"))
        dropped = (len(location) - len(location.rstrip("/"))) - (len(path) - len(path.rstrip("/")))
        return path + "/" * (dropped - 1)

    def uri_of(self, name: str) -> str:
        path = self._path(name)
        return path if self._protocol in WEB else f"{self._protocol}://{path.removeprefix('/')}"

    def list(self, prefix: str = "", recursive: bool = False) -> Iterator[ObjectInfo]:
        with self._translated(prefix, "listed"):
            root = self._path(prefix)
            self._fs.invalidate_cache()
            try:
                infos = self._keys(root) if recursive else self._run(lambda: self._fs.ls(root, detail=True))
            except FileNotFoundError:
                return
            finally:
                self._fs.invalidate_cache()  # s3fs would keep 0.6 KB of each object
            start = len(self._prefix) + 1 if self._prefix else 0
            for info in infos:
                if info["size"] or not info["name"].endswith("/"):  # an empty object under such a key marks a folder
                    yield described(str(info["name"])[start:], info)

    def _keys(self, root: str) -> builtins.list[dict[str, Any]]:
        """List the objects below ``root`` by their full names, whose parts may be empty."""
        empty = EMPTY_SEGMENT.search(f"{root}/")
        if empty is None:
            infos = self._run(lambda: self._fs.find(root, detail=True))
        else:
            # Clients drop a slash at the end of a folder: the folder above is listed, and filtered by the prefix.
            above = root[: empty.start()]
            narrowed = {"prefix": f"{root}/"[empty.start() + 1 :]} if self._fs.async_impl else {}
            infos = self._run(lambda: self._fs.find(above, detail=True, **narrowed))
            infos = {path: info for path, info in infos.items() if path.startswith(f"{root}/")}
        if not self._fs.async_impl and any(info["type"] == "directory" for info in infos.values()):
            raise SourceError(
                f"{redact(self._fs.unstrip_protocol(root))}: holds keys with two slashes in a row, which this file "
                "system cannot list; give these objects one by one"
            )
        return [{**info, "name": path} for path, info in infos.items() if info["type"] != "directory"]

    def names(self, folder: str) -> builtins.list[str]:
        return [info.name.rstrip("/").rpartition("/")[2] for info in self.list(folder)]

    def stat(self, name: str) -> ObjectInfo:
        with self._translated(name, "read"):
            return described(name, self._info(self._path(name)))

    def exists(self, name: str) -> bool:
        with suppress(MissingObject), self._translated(name, "looked for"):
            self._info(self._path(name))
            return True
        return False

    def has(self, name: str) -> bool:
        with suppress(StorageError), self._translated(name, "looked for"):
            self._info(self._path(name), deadline_seconds=0.0)
            return True
        return False

    def is_reachable(self, name: str, error: Exception) -> bool:
        """See ``base.Storage``. Storage must describe the object, or the folder that it is in."""
        if self._protocol in WEB and not is_transient(error):
            return True  # the server answered
        subject = name if is_transient(error) else name.rpartition("/")[0]
        if not subject:
            return True
        try:
            self._info(self._path(subject), deadline_seconds=0.0)
        except Exception as e:  # the boundary to clients of storage; the one of HTTP hides what failed behind another
            return is_transient(error) and not any(map(is_transient, causes(e)))
        return True

    def read(self, name: str, limit: int | None = None, size: int | None = None) -> bytes:
        with self._translated(name, "read"):
            path = self._path(name)
            if size is not None and 0 <= size <= (size if limit is None else limit):
                # By a range, since s3fs requests the size of an object first; one more byte shows that it has grown.
                data = self._range(path, 0, size + 1) if size else b""
                if len(data) == size:
                    return data
            return self._read_unknown(name, path, limit)

    def _read_unknown(self, name: str, path: str, limit: int | None) -> bytes:
        """Read by one request; the size is requested only if the first range does not reach the end."""
        first = FIRST_READ_BYTES if limit is None else min(limit, FIRST_READ_BYTES)
        try:
            data = self._range(path, 0, first + 1)
        except Exception as e:  # the boundary to clients of storage
            # Stores answer a range of an empty object with an error.
            permanent = isinstance(e, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError))
            if permanent or is_transient(e) or self._info(path)["size"] != 0:
                raise
            return b""
        if len(data) <= first:
            return data
        size = self._info(path)["size"]
        if size is None:  # of a web server: all that it sends, up to the limit
            end = None if limit is None else limit + 1
            data, size = bytes(self._call("cat_file", path, start=0, end=end)), 0
        if limit is not None and max(size, len(data)) > limit:
            raise self._too_large(name, max(size, len(data)))
        return data if size <= len(data) else data + self._range(path, len(data), size)

    def _too_large(self, name: str, size: int) -> ObjectTooLarge:
        error = ObjectTooLarge(f"{self._shown(name)}: {size:,} bytes")
        error.size = size
        return error

    def read_beginning(self, name: str, size: int) -> bytes:
        with self._translated(name, "read"):
            return self._range(self._path(name), 0, size)

    def open(self, name: str, buffer_bytes: int = TAIL_BYTES) -> BinaryIO:
        with self._translated(name, "read"):
            path = self._path(name)
            info = self._info(path)
            refuse_unreadable(info)
        stream = RangeReader(partial(self._range, path), int(info["size"]), partial(self._translated, name, "read"))
        return io.BufferedReader(stream, buffer_bytes) if buffer_bytes else stream  # type: ignore[return-value]

    def write(self, name: str, data: bytes) -> str:
        """See ``base.Storage``. One PUT, or a completed multipart upload."""
        with self._translated(name, "written"):
            self._write("pipe_file", self._path(name), data, size=len(data))
        return ""

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """See ``base.Storage``. Collected in a temporary file, which a transient failure uploads again."""
        with tempfile.NamedTemporaryFile() as f:
            yield cast(BinaryIO, f)
            with self._translated(name, "written"):
                f.flush()
                self._write("put_file", f.name, self._path(name), size=f.tell())

    def create(self, name: str, data: bytes) -> bool:
        """See ``base.Storage``. By ``If-None-Match``.

        A store that does not support it is checked first, which two concurrent writers can both pass.
        """
        with self._translated(name, "created"):
            try:
                self._write("pipe_file", self._path(name), data, mode="create", size=len(data))
                return True
            except Exception as e:  # the boundary to clients of storage
                code, status = status_of(e)
                if isinstance(e, FileExistsError) or code == "PreconditionFailed" or status == 412:
                    # The object may be from an earlier attempt of this writer whose response was lost.
                    return self.read(name) == data
                if code != "NotImplemented" and status != 501:
                    raise
        if self.exists(name):
            return False
        self.write(name, data)
        return True

    def move(self, name: str, target: str) -> None:
        with suppress(MissingObject), self._translated(name, f"moved to {target}"):
            # Not fs.mv, which lists both sides first.
            self._write("cp_file", self._path(name), self._path(target))
            self._write("rm_file", self._path(name))

    def delete(self, *names: str) -> None:
        for_each(self._delete, names)

    def _delete(self, name: str) -> None:
        with suppress(MissingObject), self._translated(name, "removed"):
            self._write("rm_file", self._path(name))

    def delete_empty_folder(self, name: str) -> None:
        """Do nothing: object stores have no folders."""

    def clean_temporary_files(self) -> None:
        """Do nothing: an object appears when its upload is complete."""

    def _path(self, name: str) -> str:
        if not self._prefix:
            return name
        return f"{self._prefix.rstrip('/')}/{name}" if name else self._prefix

    def _shown(self, name: str) -> str:
        if self.uri.endswith("://"):
            return redact(self.uri_of(name))
        return f"{self.uri}/{name}" if name else self.uri

    def _translated(self, name: str, action: str) -> AbstractContextManager[None]:
        return translated(lambda: self._shown(name), action, is_local=False)

    def _info(self, path: str, deadline_seconds: float | None = None) -> dict[str, Any]:
        self._fs.invalidate_cache()
        info: dict[str, Any] = self._call("info", path, deadline_seconds=deadline_seconds)
        return info

    def _range(self, path: str, begin: int, end: int) -> bytes:
        return bytes(self._call("cat_file", path, start=begin, end=end, size=end - begin))

    def _write(self, method: str, *args: Any, size: int = 0, **kwargs: Any) -> None:
        self._call(method, *args, size=size, deadline_seconds=self._retry.write_deadline_seconds, **kwargs)

    def _run(self, attempt: Any) -> Any:
        """Retry an operation of many requests, without a time limit for one attempt."""
        return self._retry.run(attempt, self._retry.deadline_seconds)

    def _call(
        self, method: str, *args: Any, size: int = 0, deadline_seconds: float | None = None, **kwargs: Any
    ) -> Any:
        """Call a method of the client, with retries.

        An attempt that hangs is abandoned, where the client is asynchronous (s3, gs, az, http); both time limits grow
        with ``size``, the bytes that are moved.
        """
        bound = getattr(self._fs, method)
        # fsspec's bridge to its event loop takes a timeout and cancels what runs into it.
        if inspect.iscoroutinefunction(getattr(bound, "__wrapped__", None)):
            kwargs["timeout"] = self._retry.attempt_limit(size)
        deadline = self._retry.deadline_seconds if deadline_seconds is None else deadline_seconds
        return self._retry.run(lambda: bound(*args, **kwargs), deadline, size)
