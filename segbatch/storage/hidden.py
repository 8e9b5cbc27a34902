"""Names that are not records: hidden files, markers of other tools, files of operating systems."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

# Not every leading underscore: cameras name files of the Adobe RGB color space ``_DSC0001.JPG``.
_SPARK = frozenset(
    {"_SUCCESS", "_temporary", "_metadata", "_common_metadata", "_delta_log", "_change_data", "_spark_metadata"}
)
_SPARK_PREFIXES = ("_started_", "_committed_")
_SYSTEMS = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "lost+found"),
    }
)
# Whether a path has such a name at all, by one search: a listing may have a million paths.
_SUSPECT = re.compile(r"(?:^|/)(?:[._$@#]|thumbs|ehthumbs|desktop|system |lost)", re.IGNORECASE)


def hidden_reason(path: str, meant: Collection[str] = ()) -> str | None:
    """Return why an object is not a record, by its name and the names of its folders; None if it may be one.

    Args:
        path: Its path below the input.
        meant: Parts of the input's pattern: as in the shell, one that begins with the same character includes such
            names.
    """
    if not _SUSPECT.search(path):
        return None
    for name in path.split("/"):
        reason = _reason(name)
        if reason and not any(name[0] == part[:1] and fnmatchcase(name, part) for part in meant):
            return reason
    return None


def _reason(name: str) -> str | None:
    if name.startswith("."):
        return "hidden by a leading dot" if name not in (".", "..") else None
    if name in _SPARK or (name.startswith(_SPARK_PREFIXES) and "." not in name):
        return "left by Spark, Hive or Hadoop"
    if name.lower() in _SYSTEMS:
        return "left by an operating system"
    return None
