"""Size and tag of an object in the output, as a listing tells them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

# The tag of a file that another writer has replaced at once: no listing shows it.
REPLACED = "replaced"
# What object stores call the tag of an object, the best first.
_TAGS = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "content_md5",
    "generation",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)


class FileStat(NamedTuple):
    """Size of an object, and a tag that is another one when the object was written again."""

    size: int
    tag: str


def stat_of_file(found: os.stat_result) -> FileStat:
    # The time of change too: whoever damages a file may leave its time of modification as it was.
    return FileStat(found.st_size, f"{found.st_mtime_ns}:{found.st_ctime_ns}")


def stat_of_info(info: Mapping[str, Any]) -> FileStat:
    tag = next((info[key] for key in _TAGS if info.get(key)), "")
    return FileStat(int(info["size"] or 0), str(tag).strip('"'))
