"""Addresses of files and objects: ``file:`` URIs by RFC 8089, relative references by RFC 3986."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from urllib.parse import unquote_to_bytes, urljoin

from segbatch.errors import RecordFailure, SourceError
from segbatch.text import is_web, redact, without_query

# Maximum number of a folder's other objects that are tried.
_PROBES = 8
_FILE = re.compile(r"file:(?=/)(?://(?P<host>[^/]*))?(?P<path>.*)", re.IGNORECASE | re.DOTALL)


def file_uri_path(uri: str) -> str | None:
    """Return the path that a ``file:`` URI names: ``/x`` for ``file:/x``, ``file:///x`` and ``file://localhost/x``.

    ``%20`` is a space; ``#``, ``?`` and a ``%`` without two hexadecimal digits are literal.

    Returns:
        None for plain paths, whose ``%`` are literal, and for other protocols.

    Raises:
        SourceError: The file is on another host.
    """
    parts = _FILE.fullmatch(uri)
    if parts is None:
        return None
    host, path = parts["host"] or "", parts["path"]
    if host.lower() not in ("", "localhost"):
        raise SourceError(
            f"{uri}: names a file on the host {host!r}, which is not read; give file:///PATH or a plain path for a "
            "file of this machine or of a mount"
        )
    name = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))
    if "\0" in name or not name:
        raise SourceError(f"{uri}: does not name a file; give file:///PATH without %00")
    return name


def split_uri(uri: str) -> tuple[str, str]:
    """Return (protocol, rest): ``file`` and the path for local paths and ``file:`` URIs."""
    path = file_uri_path(uri)
    if path is not None:
        return "file", path
    protocol, mark, rest = uri.partition("://")
    if not mark or not protocol.replace("+", "").replace("-", "").replace(".", "").isalnum():
        return "file", uri
    return ("file" if protocol.lower() == "local" else protocol.lower()), rest


def as_plain(uri: str) -> str:
    """Return ``uri``, or the local path of a ``file:`` URI. Raises as ``file_uri_path`` does."""
    path = file_uri_path(uri)
    return uri if path is None else path


def is_uri(text: str) -> bool:
    """Return whether ``text`` is a URI of any protocol, and not a path."""
    return "://" in text or _FILE.fullmatch(text) is not None


def absolute(uri: str) -> str:
    """Return a path as it is named from any folder; other URIs are unchanged."""
    return uri if is_uri(uri) else os.path.abspath(os.path.expanduser(uri))


def join(root: str, name: str) -> str:
    """Return the URI of ``name`` below ``root``; repeated slashes are kept, as stores keep them in their keys."""
    return f"{root}{'' if root.endswith('://') or root == '/' else '/'}{name}" if root else name


def folder_of(uri: str) -> str:
    """Return the URI of the folder of an object."""
    return without_query(uri).rpartition("/")[0]


def beside(uri: str, reference: str) -> str:
    """Return the URI that a row of a manifest or table refers to.

    On a web server references are resolved as a browser does (RFC 3986, section 5): ``/a.jpg`` is on the same host. On
    an object store ``..`` and ``.`` are resolved (section 5.2.4), all else is literal; on a disk the operating system
    resolves them.

    Args:
        uri: Of the manifest or table.
        reference: A URI, an absolute path, or a path relative to the folder of ``uri``.

    Raises:
        RecordFailure: BadUri, for a reference that leaves the bucket, and for a file on another host.
    """
    try:
        if is_uri(reference):
            return without_dots(as_plain(reference))
        if is_web(uri):
            # "a:b.jpg" would have the protocol a.
            return urljoin(uri, f"./{reference}" if ":" in reference.partition("/")[0] else reference)
        if reference.startswith("/"):
            return reference
        return without_dots(join(folder_of(uri) or "/", reference.removeprefix("./")))
    except (SourceError, ValueError) as e:
        raise RecordFailure("read", "BadUri", f"row names {redact(reference)!r}, which is not read: {e}") from None


def uris_beside(uri: str, references: Iterable[str]) -> Iterator[str]:
    """Yield ``beside`` of each of ``references`` that names an object."""
    for reference in references:
        with suppress(RecordFailure):
            yield beside(uri, reference)


def without_dots(uri: str) -> str:
    """Resolve ``.`` and ``..`` in the URI of an object in a store; paths and web addresses are unchanged.

    Raises:
        SourceError: It leads out of the bucket.
    """
    protocol, rest = split_uri(uri)
    if protocol == "file" or is_web(uri) or "::" in uri:
        return uri
    bucket, *parts = rest.split("/")
    if not {".", ".."}.intersection(parts):
        return uri
    kept: list[str] = []
    for part in parts:
        if part == ".." and not kept:
            raise SourceError(
                f"{redact(uri)}: its dots lead out of {redact(f'{protocol}://{bucket}')}; give the URI without dots"
            )
        if part == "..":
            kept.pop()
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return f"{protocol}://{'/'.join([bucket, *kept])}"


def nearest(name: str, names: Sequence[str]) -> Iterator[str]:
    """Return up to 8 of the other ``names`` in the folder of ``name``, or in the next folder above that holds any."""
    folder = name
    while folder:
        folder = folder.rpartition("/")[0]
        others = [other for other in names if other != name and other.startswith(f"{folder}/" if folder else "")]
        if others:
            return iter(others[:: -(-len(others) // _PROBES)])
    return iter(())
