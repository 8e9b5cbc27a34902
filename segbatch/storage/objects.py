"""What clients of storage say of an object, as ``ObjectInfo``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from segbatch.storage.base import Kind, ObjectInfo

# Two slashes in a row, which stores keep in their keys; not those after a protocol.
EMPTY_SEGMENT = re.compile(r"(?<!:)//")
# What clients call that which changes with the content, or with its last change, the best first.
_DIGESTS = (
    *("ETag", "etag", "md5Hash", "md5", "content_md5", "Content-MD5", "generation", "blob_id", "oid", "sha256"),
    "crc32c",
)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "generation", "LastModified", "last_modified", "mtime")


def described(name: str, info: Mapping[str, Any]) -> ObjectInfo:
    """Return what a client's ``info`` or listing says of the object ``name``."""
    size = info["size"]
    kind: Kind = "folder" if info["type"] == "directory" else "marker" if name.endswith("/") else "file"
    tag = next((info[key] for key in (*_TAGS, "created") if info.get(key)), "")
    return ObjectInfo(name, UNKNOWN_SIZE if size is None else int(size), _version(info), "", kind, str(tag).strip('"'))


# Of an object whose web server does not state it.
UNKNOWN_SIZE = -1


def _version(info: Mapping[str, Any]) -> str:
    """Changes when the object's content does: its size with the store's tag, or with its time of change."""
    told = next((info[name] for name in (*_DIGESTS, *_TIMES) if info.get(name)), None)
    return f"{info['size']}" if told is None else f"{info['size']}:{_text(told)}"


def _text(value: Any) -> str:
    """One spelling of what a client gives differently for one object and in a listing: times, tags in quotes."""
    return str(value.timestamp() if hasattr(value, "timestamp") else value).strip('"')
