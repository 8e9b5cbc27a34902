"""Everything that lies below a folder or matches a pattern, on a disk or in an object store."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from segbatch.errors import SourceError
from segbatch.storage.files import EMPTY_SEGMENT, Files, shown_uri
from segbatch.storage.hidden import hidden_reason
from segbatch.storage.objects import local_info, version_of

MAGIC = re.compile(r"[*?\[]")

# Why an object is skipped, after its count: "3 not regular files".
LOOP = "links to a folder above them"
SPECIAL = "not regular files"
MARKER = "with a key that ends in a slash"
FOLDER = "folders that a pattern matches; end it with /** to read them"


@dataclass(frozen=True)
class ObjectInfo:
    """One object: its path below the root of its input, its size in bytes, and what tells its content's version.

    ``uri`` is what is read, if not the object of that name.
    """

    name: str
    size: int
    version: str
    uri: str = ""


# An object, and why it cannot be read as one, if so.
Found = tuple[ObjectInfo, str | None]


def below(files: Files, fs: Any, root: str) -> Iterator[Found]:
    """Every object below the folder ``root``. Zero bytes under a key that ends in a slash are a folder, not an object.

    Raises what the store raises.
    """
    if isinstance(fs, LocalFileSystem):
        yield from _below_local(root, "", frozenset())
        return
    for path, info in _keys(files, fs, root).items():
        name = path[len(root) + 1 :]
        if not path.endswith("/"):
            yield ObjectInfo(name, int(info["size"] or 0), version_of(info)), None
        elif info["size"]:
            yield ObjectInfo(name, int(info["size"]), ""), MARKER


def pattern_roots(fs: Any, pattern: str) -> list[str]:
    """The folders that a pattern may be meant to be below, the likeliest first.

    These are the folder up to the first part with a wildcard, and before it the longer one if such a part is the very
    name of a folder, as ``a[1]``.
    """
    parts = pattern.split("/")[:-1]
    plain = literal = len(list(itertools.takewhile(lambda part: not MAGIC.search(part), parts)))
    while literal < len(parts) and (not MAGIC.search(parts[literal]) or _is_folder(fs, "/".join(parts[: literal + 1]))):
        literal += 1
    return ["/".join(parts[:count]) for count in dict.fromkeys((literal, plain))]


def _is_folder(fs: Any, path: str) -> bool:
    try:
        return bool(fs.isdir(path))
    except Exception:  # a client of any store raises its own; the listing tells what is wrong
        return False


def matches(files: Files, fs: Any, root: str, pattern: str) -> list[Found]:
    """What matches ``pattern`` below ``root``, one of ``pattern_roots``, by names below it.

    As in the shell, ``*`` matches within one part of a path and ``**`` any number of parts.
    """
    start = len(root) + 1 if pattern.startswith(f"{root}/") else 0
    if "**" in pattern or EMPTY_SEGMENT.search(pattern) or MAGIC.search(root):
        # Not by fs.glob: on a disk it follows links in circles, in a store it meets no empty part of a key, and the
        # root's characters would be wildcards.
        compiled = re.compile(glob_translate(pattern[start:]))
        literal = EMPTY_SEGMENT.search(pattern) is not None
        found = (item for item in below(files, fs, root))
        return [i for i in found if compiled.match(i[0].name if literal else _collapsed(i[0].name))]
    paths = files.retry(fs, lambda: fs.glob(pattern, detail=True))
    if isinstance(fs, LocalFileSystem):
        return [_found_local(path, path[start:]) for path in paths]
    return [_found_remote(info, path[start:]) for path, info in paths.items()]


def _collapsed(name: str) -> str:
    return re.sub("/+", "/", name).lstrip("/")


def _found_remote(info: dict[str, Any], name: str) -> Found:
    if info["type"] == "directory":
        return ObjectInfo(name, 0, ""), FOLDER
    return ObjectInfo(name, int(info["size"] or 0), version_of(info)), None


def _found_local(path: str, name: str) -> Found:
    try:
        info = local_info(path)
    except OSError:  # a broken link: a record whose reading fails, not one that is passed over
        return ObjectInfo(name, 0, "missing"), None
    problem = {"file": None, "directory": FOLDER}.get(info["type"], SPECIAL)
    return ObjectInfo(name, int(info["size"]), version_of(info)), problem


def _below_local(root: str, folder: str, within: frozenset[tuple[int, int]]) -> Iterator[Found]:
    """Links to folders are followed, unless they lead back into a folder that the path is already in."""
    path = os.path.join(root, folder)
    try:
        here, names = os.stat(path), os.listdir(path)
    except OSError:
        if hidden_reason(folder) is None:
            raise
        yield ObjectInfo(f"{folder}/", 0, ""), None  # such as lost+found: it would not be read anyway
        return
    if (here.st_dev, here.st_ino) in within:
        yield ObjectInfo(f"{folder}/", 0, ""), LOOP
        return
    within |= {(here.st_dev, here.st_ino)}
    for name in names:
        relative = os.path.join(folder, name)
        entry, problem = _found_local(os.path.join(root, relative), relative)
        if problem == FOLDER:
            yield from _below_local(root, relative, within)
        else:
            yield entry, problem


def _keys(files: Files, fs: Any, root: str) -> dict[str, dict[str, Any]]:
    """The objects below ``root`` in a store by their full names, whose parts may be empty."""
    empty = EMPTY_SEGMENT.search(f"{root}/")
    if empty is None:
        found = files.retry(fs, lambda: fs.find(root, detail=True))
    else:
        # Stores' clients drop a slash at the end of a folder: what lies above is listed, of it what has the prefix.
        above = root[: empty.start()]
        narrowed = {"prefix": f"{root}/"[empty.start() + 1 :]} if fs.async_impl else {}
        found = files.retry(fs, lambda: fs.find(above, detail=True, **narrowed))
        found = {path: info for path, info in found.items() if path.startswith(f"{root}/")}
    if not fs.async_impl and any(info["type"] == "directory" for info in found.values()):
        raise SourceError(
            f"{shown_uri(fs.unstrip_protocol(root))}: holds keys with two slashes in a row, which this file system "
            "cannot list; give these objects one by one"
        )
    return {path: info for path, info in found.items() if info["type"] != "directory"}
