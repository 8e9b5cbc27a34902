"""Listing of all objects below a folder, or of those that match a pattern."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from fsspec.utils import glob_translate

from segbatch.errors import StorageError
from segbatch.storage.base import Kind, ObjectInfo, Storage
from segbatch.storage.objects import EMPTY_SEGMENT

MAGIC = re.compile(r"[*?\[]")

# Why an object is skipped, after its count: "3 not regular files".
FOLDER = "folders that a pattern matches; end it with /** to read them"
REASONS: dict[Kind, str] = {
    "loop": "links to a folder above them",
    "special": "not regular files",
    "marker": "with a key that ends in a slash",
    "folder": FOLDER,
}


def below(storage: Storage, root: str) -> Iterator[ObjectInfo]:
    """List every object below the folder ``root``, by names below it."""
    for info in storage.list(root, recursive=True):
        yield replace(info, name=info.name[len(root) + 1 :] if root != "/" else info.name[1:])


def pattern_roots(storage: Storage, pattern: str) -> list[str]:
    """Return the folders that a pattern may be relative to, the likeliest first.

    These are the folder up to the first part with a wildcard, and before it a longer one if such a part is the literal
    name of a folder, such as ``a[1]``.
    """
    parts = pattern.split("/")[:-1]
    plain = literal = len(list(itertools.takewhile(lambda part: not MAGIC.search(part), parts)))
    while literal < len(parts) and (
        not MAGIC.search(parts[literal]) or _is_folder(storage, "/".join(parts[: literal + 1]))
    ):
        literal += 1
    return ["/".join(parts[:count]) for count in dict.fromkeys((literal, plain))]


def _is_folder(storage: Storage, path: str) -> bool:
    try:
        return storage.stat(path).kind == "folder"
    except StorageError:  # the listing raises it, too
        return False


def matches(storage: Storage, root: str, pattern: str) -> list[ObjectInfo]:
    """List what matches ``pattern`` below ``root``, one of ``pattern_roots``, by names below it.

    As in the shell, ``*`` matches within one part of a path and ``**`` any number of parts.
    """
    start = len(root) + 1 if pattern.startswith(f"{root}/") else 0
    rest = pattern[start:]
    if "**" in rest or EMPTY_SEGMENT.search(pattern):
        compiled = re.compile(glob_translate(rest))
        literal = EMPTY_SEGMENT.search(pattern) is not None
        return [i for i in below(storage, root) if compiled.match(i.name if literal else _collapsed(i.name))]
    return list(_expand(storage, root, "", rest.split("/")))


def _expand(storage: Storage, root: str, folder: str, parts: list[str]) -> Iterator[ObjectInfo]:
    """List what matches ``parts`` below ``folder``, itself below ``root``, by one listing of each matching folder."""
    path = "/".join(filter(None, (root, folder)))
    if len(parts) > 1 and not MAGIC.search(parts[0]):
        yield from _expand(storage, root, "/".join(filter(None, (folder, parts[0]))), parts[1:])
        return
    compiled = re.compile(glob_translate(parts[0]))
    for info in storage.list(path or "/"):
        last = info.name.rpartition("/")[2]
        if not compiled.match(last):
            continue
        name = "/".join(filter(None, (folder, last)))
        if len(parts) == 1:
            yield replace(info, name=name)
        elif info.kind == "folder":
            yield from _expand(storage, root, name, parts[1:])


def _collapsed(name: str) -> str:
    return re.sub("/+", "/", name).lstrip("/")
