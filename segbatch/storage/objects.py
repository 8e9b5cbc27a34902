"""Conversion of what clients of storage return for an object to ``ObjectInfo``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from segbatch.storage.base import Kind, ObjectInfo

# Two slashes in a row, which stores keep in their keys; not those after a protocol.
EMPTY_SEGMENT = re.compile(r"(?<!:)//")
# Keys of clients for digests of the content and for times of its last change, the best first.
_DIGESTS = (
    *("ETag", "etag", "md5Hash", "md5", "content_md5", "Content-MD5", "generation", "blob_id", "oid", "sha256"),
    "crc32c",
)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "generation", "LastModified", "last_modified", "mtime")


def described(name: str, info: Mapping[str, Any]) -> ObjectInfo:
    """Return the ``ObjectInfo`` for a client's ``info`` of the object ``name``."""
    size = info["size"]
    kind: Kind = "folder" if info["type"] == "directory" else "marker" if name.endswith("/") else "file"
    tag = next((info[key] for key in (*_TAGS, "created") if info.get(key)), "")
    return ObjectInfo(name, UNKNOWN_SIZE if size is None else int(size), _version(info), "", kind, str(tag).strip('"'))


# Size of an object whose server does not state it.
UNKNOWN_SIZE = -1


def _version(info: Mapping[str, Any]) -> str:
    """Return the size with the store's tag, or with the time of the last change."""
    tag = next((info[name] for name in (*_DIGESTS, *_TIMES) if info.get(name)), None)
    return f"{info['size']}" if tag is None else f"{info['size']}:{_text(tag)}"


def _text(value: Any) -> str:
    """Normalize what clients return differently for one object and in a listing: times, quoted tags."""
    return str(value.timestamp() if hasattr(value, "timestamp") else value).strip('"')
