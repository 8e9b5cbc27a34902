"""Listing of inputs: patterns are expanded, folders are listed once, each object has its size and version."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from segbatch.errors import AbsentInput, MissingObject, SourceError, StorageError
from segbatch.skipped import Skipped
from segbatch.storage.base import ObjectInfo, Storage
from segbatch.storage.files import Files, outage, shown_name
from segbatch.storage.hidden import hidden_reason
from segbatch.storage.objects import EMPTY_SEGMENT, UNKNOWN_SIZE
from segbatch.storage.outputs import REASON as OUTPUTS
from segbatch.storage.outputs import without_outputs
from segbatch.storage.ranges import MAX_WHOLE_BYTES
from segbatch.storage.tables import table_mark
from segbatch.storage.uri import as_plain, folder_of, join, split_uri, without_dots
from segbatch.storage.walk import MAGIC, REASONS, below, matches, pattern_roots
from segbatch.text import escape_invalid_utf8, is_web, redact, without_query

# From so many objects of one folder on, the folder is listed instead.
_NEIGHBORS = 8
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_WEB_LISTS_NOTHING = (
    "; over http a server lists no folders and no globs: name each object, by a range {000..099} or in a manifest"
)
_PADDED = re.compile(r"-?0\d+")


@dataclass(frozen=True)
class Listed:
    """The objects that one input names.

    Attributes:
        root: URI of the folder that all of them are below.
        entries: The objects, by names below ``root``.
        by: How they are named: one by its name, several by theirs (braces), by a pattern, or all in a folder.
        skipped: What is not a record by its name or kind, by names below ``root``.
        marks: Where tables of a lakehouse are, see ``tables.table_mark``.
    """

    root: str
    entries: list[ObjectInfo]
    by: Literal["name", "names", "pattern", "folder"]
    skipped: Skipped = field(default_factory=Skipped)
    marks: frozenset[tuple[str, str]] = frozenset()


def expand_braces(pattern: str) -> list[str]:
    """Expand braces like a shell: ``{000..002}`` to three names with their zeros, ``{0..9..3}`` to four, ``{a,b}``.

    Other braces are unchanged. Nested braces are not supported.
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


def expanded(files: Files, given: str) -> list[str]:
    """Expand braces, unless an object or folder has the literal name."""
    if len(expand_braces(given)) == 1 or _exists(files, given):
        return [given]
    slashes = [match.start() for match in re.finditer("/", given)]
    for at in reversed([] if is_web(given) else slashes):
        if "{" in given[:at] and _exists(files, given[:at]):
            return [given[:at] + name for name in expand_braces(given[at:])]
    return expand_braces(given)


def _exists(files: Files, uri: str) -> bool:
    """Whether an object has the literal name ``uri``: also a broken link, but not if storage refuses to answer."""
    storage, path = files.resolve(uri)
    return storage.exists(path) if storage.is_local else storage.has(path)


def list_input(files: Files, given: str) -> list[Listed]:
    """List the objects that one input names.

    Raises:
        AbsentInput: It names nothing.
        SourceError: It cannot be listed.
        Outage: Its storage is unavailable.
    """
    given = as_plain(given)
    try:
        given = given if "/." not in given or _exists(files, given) else without_dots(given)
        plain = expanded(files, given)
        if is_web(given):
            return [_web_object(files, uri) for uri in plain]
        if len(plain) > 1 and not any(MAGIC.search(p) for p in plain):
            return _all_named(files, given, plain)
        return [_list_one(files, uri) for uri in plain]
    except StorageError as e:
        if isinstance(e, FileNotFoundError) or isinstance(e.__cause__, NotADirectoryError):
            raise AbsentInput(f"{redact(given)}: does not exist{_near(files, given)}") from None
        if isinstance(e.__cause__, PermissionError):
            remedy = "the permissions of the files" if split_uri(given)[0] == "file" else "your credentials"
            raise SourceError(f"{redact(given)}: {e.problem}; check {remedy}") from e
        if e.transient:
            raise outage(given, e) from e
        raise SourceError(f"{redact(given)}: {e.problem}") from e


def _list_one(files: Files, uri: str) -> Listed:
    storage, path = files.resolve(uri)
    if MAGIC.search(path) and not _exists(files, uri):
        for root in pattern_roots(storage, path):
            if objects := matches(storage, root, path):
                return _chosen(files, storage, root, objects, path)
    if path.endswith("/") and not storage.is_local:  # of a key with an empty part
        return _folder(files, storage, path)
    info = storage.stat(path)
    if info.kind == "folder":
        return _folder(files, storage, path)
    parent, _, name = path.rpartition("/")
    return Listed(storage.uri_of(parent), [replace(info, name=name, kind="file")], "name")


def _folder(files: Files, storage: Storage, path: str) -> Listed:
    objects = list(below(storage, path))
    if not objects and not storage.is_local:
        raise MissingObject(f"{redact(storage.uri_of(path))}: does not exist")
    return _chosen(files, storage, path, objects)


def _chosen(files: Files, storage: Storage, root: str, objects: list[ObjectInfo], pattern: str = "") -> Listed:
    """Keep what may be a record, and count the others by reason."""
    uri, skipped = storage.uri_of(root), Skipped()
    objects, outputs = without_outputs(files, storage.uri_of, root, objects, whole=not pattern)
    for name in outputs:
        skipped.add(OUTPUTS, escape_invalid_utf8(shown_name(uri, name)))
    entries, meant = [], pattern.split("/")
    for entry in objects:
        reason = REASONS.get(entry.kind) or hidden_reason(entry.name, meant)
        if reason is None:
            entries.append(entry)
        else:
            skipped.add(reason, escape_invalid_utf8(shown_name(uri, entry.name)))
    entries.sort(key=lambda e: e.name)
    marks = frozenset(mark for entry in objects if (mark := table_mark(entry.name)))
    return Listed(uri, entries, "pattern" if pattern else "folder", skipped, marks)


def _web_object(files: Files, uri: str) -> Listed:
    """Describe one object of a web server, which lists nothing: ``?`` begins a query, and ``*`` is a character."""
    storage, path = files.resolve(uri)
    folder = folder_of(uri)
    name = without_query(uri)[len(folder) + 1 :]
    info = storage.stat(path) if name else None
    if info is None or info.kind == "folder":
        raise SourceError(f"{redact(uri)}: is a folder{_WEB_LISTS_NOTHING}")
    if info.size == UNKNOWN_SIZE:
        raise SourceError(
            f"{redact(uri)}: the server does not state its size, and it is above {MAX_WHOLE_BYTES:,} bytes; download "
            "it, and give the file"
        )
    return Listed(folder, [replace(info, name=uri[len(folder) + 1 :])], "name")


def _all_named(files: Files, given: str, uris: list[str]) -> list[Listed]:
    """List the files or folders of a brace pattern; all must exist, so that none is lost by a typing error."""
    storage, _ = files.resolve(uris[0])
    paths = [files.resolve(u)[1] for u in uris]
    described = _described(storage, paths)
    missing = [u for u, p in zip(uris, paths, strict=True) if p not in described]
    if missing:
        error = AbsentInput if len(missing) == len(paths) else SourceError
        raise error(
            f"{redact(given)}: {len(missing)} of {len(paths)} do not exist, the first is {redact(missing[0])}"
            f"{_near(files, missing[0])}"
        )
    if any(described[p].kind == "folder" for p in paths):
        return [_list_one(files, u) for u in uris]
    root = _common_folder(paths)
    entries = [replace(described[p], name=p[len(root) + 1 :], kind="file") for p in paths]
    return [Listed(storage.uri_of(root), entries, "names")]


def _described(storage: Storage, paths: Iterable[str]) -> dict[str, ObjectInfo]:
    """Describe each of ``paths`` that exists; many in one folder by one listing of it."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.rpartition("/")[0], []).append(path)
    described: dict[str, ObjectInfo] = {}
    for parent, group in groups.items():
        if len(group) > _NEIGHBORS and not storage.is_local and not EMPTY_SEGMENT.search(f"{parent}/"):
            listed = {info.name: info for info in storage.list(parent)}
            described.update({path: listed[path] for path in group if path in listed})
            continue
        for path in group:
            with suppress(MissingObject):
                described[path] = storage.stat(path)
    return described


def _common_folder(paths: list[str]) -> str:
    """Return the deepest folder of all ``paths``; parts of keys may be empty."""
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    return "/".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _near(files: Files, uri: str) -> str:
    """Return ``; did you mean …?`` from the files beside a local path that does not exist."""
    storage, path = files.resolve(uri)
    if is_web(uri):
        return _WEB_LISTS_NOTHING
    if not storage.is_local:
        return "; check the bucket, the prefix and the credentials"
    parent = path
    while parent != "/" and (MAGIC.search(parent) or not os.path.isdir(parent)):
        path, parent = parent, os.path.dirname(parent)
    try:
        names = sorted(n for n in storage.names(parent) if not n.startswith("."))
    except StorageError as e:
        return f"; {parent}: {e.problem}"
    close = difflib.get_close_matches(os.path.basename(path), names, n=3, cutoff=0.4)
    if close:
        return f"; did you mean {', '.join(join(parent, c) for c in close)}?"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"; {parent} holds {shown or 'nothing'}"
