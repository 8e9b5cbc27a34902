"""What stores tell of an object: its size, its kind, and what changes when its content does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from segbatch.storage.files import EMPTY_SEGMENT, Files


def version_of(info: dict[str, Any]) -> str:
    """Changes when the object's content does: its size with the store's tag, or with its time of change."""
    for name in (
        "ETag",
        "etag",
        "md5Hash",
        "md5",
        "content_md5",
        "Content-MD5",
        "generation",
        "blob_id",
        "oid",
        "sha256",
        "crc32c",
    ):
        if info.get(name):
            return f"{info['size']}:{_text(info[name])}"
    if "mtime_ns" in info:
        return f"{info['size']}:{info['mtime_ns']}"
    for name in ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created"):
        if info.get(name):
            return f"{info['size']}:{_text(info[name])}"
    return f"{info['size']}"


def local_info(path: str) -> dict[str, Any]:
    """What ``info`` of a remote store tells, for a local file, with the time of change in nanoseconds."""
    found = os.stat(path)
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
    return {"name": path, "size": found.st_size, "type": kind, "mtime_ns": found.st_mtime_ns}


def infos(files: Files, fs: Any, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the store tells of each of ``paths`` that exists; neighbors are looked up in one listing."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.rpartition("/")[0], []).append(path)
    found: dict[str, dict[str, Any]] = {}
    for parent, group in groups.items():
        if isinstance(fs, LocalFileSystem):
            found.update({p: local_info(p) for p in group if os.path.exists(p)})
            continue
        if len(group) > 8 and not EMPTY_SEGMENT.search(f"{parent}/"):  # which a client's ls drops
            try:
                there = {str(i["name"]): i for i in files.retry(fs, lambda parent=parent: fs.ls(parent, detail=True))}  # type: ignore[misc]
            except FileNotFoundError:
                continue
            found.update({p: there[p] for p in group if p in there})
            continue
        for path in group:
            try:
                found[path] = files.call(fs, "info", path)
            except FileNotFoundError:
                continue
    return found


def _text(value: Any) -> str:
    """One spelling of what a client gives differently for one object and in a listing: times, tags in quotes."""
    return str(value.timestamp() if hasattr(value, "timestamp") else value).strip('"')
