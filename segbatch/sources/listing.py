"""What the inputs name: patterns expanded, folders listed once, each object with its size and version."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from segbatch.errors import SourceError
from segbatch.retry import is_transient
from segbatch.sources.io import Files, brief, folder_of, infos, local_info, outage, shown_uri, split_uri, version_of
from segbatch.text import is_web

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_PADDED = re.compile(r"-?0\d+")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Entry:
    """One object: its path below the root of its input, its size in bytes, and what tells its content's version.

    ``uri`` is what is read, if not the object of that name.
    """

    name: str
    size: int
    version: str
    uri: str = ""


@dataclass(frozen=True)
class Listed:
    """What one input names: ``entries`` below the URI ``root``; with ``folder`` all that it holds, chosen by nobody."""

    root: str
    entries: list[Entry]
    folder: bool


def join(root: str, name: str) -> str:
    """The URI of ``name`` below ``root``."""
    return f"{root.rstrip('/')}/{name}" if root else name


def expand_braces(pattern: str) -> list[str]:
    """As the shell does: ``s/{000..002}.tar`` -> three names, zeros kept; ``{0..9..3}`` -> four; ``{a,b}`` -> two.

    Braces that are neither stay as they are. One pair within another is not understood.
    """
    begin = pattern.find("{")
    end = pattern.find("}", begin)
    if begin < 0 or end < 0:
        return [pattern]
    inside = pattern[begin + 1 : end]
    numbers = _RANGE.fullmatch(inside)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        padded = _PADDED.fullmatch(numbers[1]) or _PADDED.fullmatch(numbers[2])
        digits = max(len(numbers[1]), len(numbers[2])) if padded else 0
        step = max(1, int(numbers[3] or 1)) * (1 if last >= first else -1)
        choices = [str(n).zfill(digits) for n in range(first, last + (1 if step > 0 else -1), step)]
    elif "," in inside:
        choices = inside.split(",")
    else:
        return [pattern]
    return [pattern[:begin] + c + rest for c in choices for rest in expand_braces(pattern[end + 1 :])]


def list_input(files: Files, given: str) -> list[Listed]:
    """Everything one input names. Raises ``SourceError`` if that is nothing, or if the store cannot be read."""
    plain = expand_braces(given)
    found: list[Listed] = []
    try:
        files.resolve(plain[0])[0].invalidate_cache()  # an earlier run in this process may have listed it
        if is_web(given):
            return [_web_object(files, uri) for uri in plain]
        if len(plain) > 1 and not any(_MAGIC.search(p) for p in plain):
            return _all_named(files, given, plain)
        for uri in plain:
            found.append(_list_one(files, uri))
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{shown_uri(given)}: nothing is there{_near(files, given)}") from None
    except SourceError:
        raise
    except Exception as e:
        if is_transient(e):
            raise outage(given, e) from e
        raise SourceError(f"{shown_uri(given)}: cannot be listed ({type(e).__name__}: {brief(e)})") from e
    return found


def _list_one(files: Files, uri: str) -> Listed:
    fs, path = files.resolve(uri)
    protocol = split_uri(uri)[0]
    if os.path.exists(path) if isinstance(fs, LocalFileSystem) else not _MAGIC.search(path):
        info = local_info(path) if isinstance(fs, LocalFileSystem) else files.retry(fs, lambda: fs.info(path))
        if info["type"] == "directory":
            return Listed(_uri(fs, protocol, path), sorted(_below(files, fs, path), key=lambda e: e.name), folder=True)
        parent, _, name = path.rpartition("/")
        return Listed(_uri(fs, protocol, parent), [Entry(name, int(info["size"]), version_of(info))], folder=False)
    if not _MAGIC.search(path):
        raise FileNotFoundError(path)
    parts = path.split("/")
    still = "/".join(itertools.takewhile(lambda p: not _MAGIC.search(p), parts))
    paths = files.retry(fs, lambda: fs.glob(path, detail=True))
    entries = []
    for found, info in sorted(paths.items()):
        info = local_info(found) if isinstance(fs, LocalFileSystem) else info
        if info["type"] == "file":
            entries.append(Entry(found[len(still) :].lstrip("/"), int(info["size"]), version_of(info)))
    if not entries:
        raise FileNotFoundError(path)
    return Listed(_uri(fs, protocol, still), entries, folder=False)


def _web_object(files: Files, uri: str) -> Listed:
    """One object of a web server, which lists nothing: ``?`` begins a query, and ``*`` is a character."""
    fs, path = files.resolve(uri)
    info = files.call(fs, "info", path)
    if info["size"] is None:
        raise SourceError(f"{shown_uri(uri)}: the server does not tell its size; download it and give the file")
    folder = folder_of(uri)
    return Listed(folder, [Entry(uri[len(folder) + 1 :], int(info["size"]), version_of(info))], folder=False)


def _all_named(files: Files, given: str, uris: list[str]) -> list[Listed]:
    """The files or folders of a brace pattern; all must be there, so that none is lost by a slip of the pattern."""
    fs, _ = files.resolve(uris[0])
    paths = [files.resolve(u)[1] for u in uris]
    found = infos(files, fs, paths)
    lacking = [u for u, p in zip(uris, paths, strict=True) if p not in found]
    if lacking:
        raise SourceError(
            f"{shown_uri(given)}: {len(lacking)} of {len(paths)} are not there, the first is {shown_uri(lacking[0])}"
            f"{_near(files, lacking[0])}"
        )
    if any(found[p]["type"] == "directory" for p in paths):
        return [_list_one(files, u) for u in uris]
    root = os.path.commonpath([os.path.dirname(p) for p in paths])
    entries = [Entry(os.path.relpath(p, root), int(found[p]["size"]), version_of(found[p])) for p in paths]
    return [Listed(_uri(fs, split_uri(uris[0])[0], root), entries, folder=False)]


def _below(files: Files, fs: Any, root: str) -> Iterator[Entry]:
    """Files below a folder, but those that are hidden, or in a hidden folder (a leading ``.`` or ``_``)."""
    if isinstance(fs, LocalFileSystem):
        yield from _below_local(root, "", frozenset())
        return
    for path, info in files.retry(fs, lambda: fs.find(root, detail=True)).items():
        relative = path[len(root) :].lstrip("/")
        if relative and not any(_hidden(part) for part in relative.split("/")):
            yield Entry(relative, int(info["size"]), version_of(info))


def _below_local(root: str, below: str, within: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    """Links to folders are followed, unless they lead back into a folder that the path is already in."""
    folder = os.path.join(root, below)
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in within:
        return
    within |= {(here.st_dev, here.st_ino)}
    for name in os.listdir(folder):
        relative = os.path.join(below, name)
        if _hidden(name):
            continue
        try:
            info = local_info(os.path.join(folder, name))
        except OSError:  # a broken link: a record whose reading fails, not one that is passed over
            yield Entry(relative, 0, "missing")
            continue
        if info["type"] == "directory":
            yield from _below_local(root, relative, within)
        elif info["type"] == "file":
            yield Entry(relative, int(info["size"]), version_of(info))


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _uri(fs: Any, protocol: str, path: str) -> str:
    return (path or "/") if isinstance(fs, LocalFileSystem) else f"{protocol}://{path.lstrip('/')}"


def _near(files: Files, uri: str) -> str:
    """``; did you mean …?`` from what stands beside a local path that is not there."""
    fs, path = files.resolve(uri)
    if is_web(uri):
        return "; a web server lists no folders and no globs: name each object, by a range {000..099} or in a manifest"
    if not isinstance(fs, LocalFileSystem):
        return "; check the bucket, the prefix and the credentials"
    parent = path
    while parent != "/" and (_MAGIC.search(parent) or not os.path.isdir(parent)):
        path, parent = parent, os.path.dirname(parent)
    try:
        names = sorted(n for n in os.listdir(parent) if not n.startswith("."))
    except OSError as e:
        return f"; {parent} cannot be listed ({e.strerror})"
    close = difflib.get_close_matches(os.path.basename(path), names, n=3, cutoff=0.4)
    if close:
        return f"; did you mean {', '.join(join(parent, c) for c in close)}?"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"; {parent} holds {shown or 'nothing'}"
