"""The output folder on any fsspec file system: whole objects only, appearing at once or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segbatch.errors import OutputError, SpecError

TEMPORARY = ".tmp"


class Store:
    """Reads, lists and atomically writes objects below one URI. Picklable; holds no connection when pickled."""

    def __init__(self, uri: str, storage_options: dict[str, Any] | None = None) -> None:
        self.uri = uri.rstrip("/") or "/"
        self._options = storage_options or {}
        self._connect()

    def _connect(self) -> None:
        try:
            self.fs, self.path = fsspec.core.url_to_fs(self.uri, **self._options)
        except ImportError as e:
            raise SpecError(f"output {self.uri}: {e}; for S3 install 'segbatch[s3]', likewise gcs, azure") from None
        except ValueError as e:
            raise SpecError(f"output {self.uri}: {e}") from None
        self.local = isinstance(self.fs, LocalFileSystem)
        if self.local and os.path.exists(self.path) and not os.path.isdir(self.path):
            raise SpecError(f"output {self.uri}: is a file; give a folder")

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def read(self, name: str) -> bytes:
        """The whole object. Raises ``FileNotFoundError``, or ``OutputError`` for any other failure."""
        try:
            return bytes(self.fs.cat_file(self.full(name)))
        except FileNotFoundError:
            raise
        except OSError as e:
            raise OutputError(f"{self.uri}/{name}: cannot be read: {e}") from e

    def exists(self, name: str) -> bool:
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.full(name)))

    def names(self, folder: str) -> list[str]:
        """Names of the objects directly below ``folder``; an absent folder has none."""
        try:
            self.fs.invalidate_cache()
            found = self.fs.ls(self.full(folder), detail=False)
        except FileNotFoundError:
            return []
        except OSError as e:
            raise OutputError(f"{self.uri}/{folder}: cannot be listed: {e}") from e
        return [str(p).rstrip("/").rsplit("/", 1)[-1] for p in found]

    def write(self, name: str, data: bytes) -> None:
        """Publish ``data`` under ``name``, replacing what was there: a reader sees the old or the new, whole.

        File systems: a temporary file, flushed to disk, then renamed. Object stores: one PUT or a completed
        multipart upload. Raises ``OutputError``; nothing new is then visible under the name.
        """
        try:
            if self.local:
                self._replace(name, data)
            else:
                self.fs.pipe_file(self.full(name), data)
        except OSError as e:
            raise OutputError(f"{self.uri}/{name}: cannot be written: {e}; free space or permissions?") from e

    def create(self, name: str, data: bytes) -> bool:
        """Publish ``data`` under ``name`` if nothing is there; False if another writer was first."""
        try:
            if not self.local:
                self.fs.pipe_file(self.full(name), data, mode="create")
                return True
            temporary = self._temporary(data)
            try:
                os.makedirs(os.path.dirname(self.full(name)), exist_ok=True)
                os.link(temporary, self.full(name))
            finally:
                temporary.unlink(missing_ok=True)
            return True
        except FileExistsError:
            return False
        except OSError as e:
            raise OutputError(f"{self.uri}/{name}: cannot be created: {e}; free space or permissions?") from e

    def remove(self, name: str) -> None:
        """Remove an object, or a folder with all it holds; an absent one is no error."""
        try:
            self.fs.rm(self.full(name), recursive=True)
        except FileNotFoundError:
            pass
        except OSError as e:
            raise OutputError(f"{self.uri}/{name}: cannot be removed: {e}") from e

    def move(self, name: str, target: str) -> None:
        """Rename an object; one that another run has moved already is no error."""
        try:
            self.fs.makedirs(self.full(target).rsplit("/", 1)[0], exist_ok=True)
            self.fs.mv(self.full(name), self.full(target))
        except FileNotFoundError:
            pass
        except OSError as e:
            raise OutputError(f"{self.uri}/{name}: cannot be moved to {target}: {e}") from e

    def sweep(self) -> None:
        """Remove what killed writers left half-written. A writer that is still at it notices and goes on."""
        if self.local:
            self.remove(TEMPORARY)

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

    def _replace(self, name: str, data: bytes) -> None:
        target = Path(self.full(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2, 3):
            try:
                os.replace(self._temporary(data), target)
                return
            except FileNotFoundError:  # swept between write and rename
                if attempt == 3:
                    raise
