"""Storage as a file system of Arrow, so that a ``pyarrow.dataset`` reads any store."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from pyarrow import PythonFile, fs


class _ReadOnlyHandler(fs.FSSpecHandler):
    """Opens objects for reading through segbatch's own client, with its retries and redacted messages."""

    def __init__(self, open_object: Callable[[str], BinaryIO]) -> None:
        super().__init__(None)
        self._open = open_object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ReadOnlyHandler) and self._open == other._open

    def get_type_name(self) -> str:
        return "segbatch"

    def normalize_path(self, path: str) -> str:
        return path

    def open_input_file(self, path: str) -> PythonFile:
        return PythonFile(self._open(path), mode="r")


def local(root: str) -> fs.FileSystem:
    """Return a folder of this machine, read without Python."""
    return fs.SubTreeFileSystem(root, fs.LocalFileSystem())


def remote(open_object: Callable[[str], BinaryIO]) -> fs.FileSystem:
    """Return the objects that ``open_object`` opens by name. They can be read; they are not listed."""
    return fs.PyFileSystem(_ReadOnlyHandler(open_object))
