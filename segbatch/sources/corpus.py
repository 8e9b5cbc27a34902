"""The corpus root: the folder that names of shards and ids of images are relative to."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

from segbatch.errors import SourceError
from segbatch.storage.uri import split_uri
from segbatch.text import redact

_SAME_STORE = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}


class OutsideRoot(SourceError):
    """An input is not below the corpus root."""


def common_root(folders: Sequence[str]) -> str:
    """Return the deepest folder that contains all ``folders``, "" if they are in several kinds of stores."""
    if len({store_of(folder) for folder in folders}) != 1:
        return ""
    level = zip(*(_segments(folder) for folder in folders), strict=False)
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, level)]
    protocol = split_uri(folders[0])[0]
    return ("/".join(shared) or "/") if protocol == "file" else f"{protocol}://{'/'.join(shared)}"


def prefix_below(root: str, folder: str, what: str) -> str:
    """Return the prefix of names in ``folder`` relative to ``root``: ``a/b/``, or "" for the root itself.

    Local paths that contain symbolic links are compared by their targets as well.

    Raises:
        OutsideRoot: ``folder`` is not below ``root``; the message names the input ``what``.
    """
    if not root:
        return "".join(f"{part}/" for part in folder.replace("://", "/").removeprefix("/").split("/"))
    if store_of(root) == store_of(folder):
        plain: Callable[[str], str] = str
        for spelled in (plain, _real) if store_of(root) == "file" else (plain,):
            above, path = _segments(spelled(root)), _segments(spelled(folder))
            if path[: len(above)] == above:
                return "".join(f"{part}/" for part in path[len(above) :])
    raise OutsideRoot(
        f"{redact(what)}: lies outside of {redact(root)}, the corpus root that the first run of this output has "
        "fixed, to which all ids are relative; choose another --output, or move the input below that root"
    )


def store_of(uri: str) -> str:
    """Return the kind of store of a URI, as one of its protocols."""
    protocol = split_uri(uri)[0]
    return _SAME_STORE.get(protocol, protocol)


def _segments(uri: str) -> list[str]:
    path = split_uri(uri)[1]
    return path.split("/") if path.strip("/") else [""] if uri.startswith("/") else []


def _real(path: str) -> str:
    return os.path.realpath(split_uri(path)[1])
