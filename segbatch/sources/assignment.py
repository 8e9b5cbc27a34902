"""Formats by file names: which objects of a listing are read by which format, and which are skipped."""

from __future__ import annotations

from segbatch.contents import archive_by_name
from segbatch.errors import EmptyInput, MissingInput, SourceError
from segbatch.sources.formats import FORMATS
from segbatch.sources.manifest import Manifest
from segbatch.storage.base import ObjectInfo
from segbatch.storage.files import shown_name
from segbatch.storage.listing import Listed
from segbatch.storage.uri import join
from segbatch.text import escape_invalid_utf8, redact, without_query

_UNKNOWN = "with an unknown suffix"


def by_format(item: Listed, format: str | None) -> dict[str, list[ObjectInfo]]:
    """Return the objects of an input by format; objects that are not read are counted in ``item.skipped``.

    Args:
        format: Format of all objects; in a folder, of those with one of its extensions, and the others are skipped.

    Raises:
        SourceError: Nothing is left, a folder holds several formats, or the format of a named file is unknown.
    """
    groups: dict[str, list[ObjectInfo]] = {}
    for entry in item.entries:
        uri = join(item.root, entry.name)
        name = format if format and (item.by != "folder" or _has_extension(uri, format)) else _format_of(uri)
        if name is not None:
            groups.setdefault(name, []).append(entry)
        elif item.by in ("folder", "pattern"):
            item.skipped.add(_UNKNOWN, escape_invalid_utf8(shown_name(item.root, entry.name)))
        else:
            if archive := archive_by_name(without_query(uri)):
                raise SourceError(f"{redact(uri)}: by its name {archive}")
            raise SourceError(
                f"{redact(uri)}: its name tells no format; known: {_known()}; leave it out, or set the option format"
            )
    if item.by == "folder":
        groups = _meant(item, groups, format)
    if not groups:
        held = "; ".join(item.skipped.lines())
        remedy = f"; known: {_known()}; or give them by a pattern, and set the option format"
        archive = next(filter(None, (archive_by_name(entry.name) for entry in item.entries)), "")
        if archive:
            remedy = f"; that is {archive}"
        kind = MissingInput if item.entries else EmptyInput
        if not held:
            raise kind(f"{redact(item.root)}: holds no shard and no image: it is empty")
        raise kind(
            f"{redact(item.root)}: holds no shard and no image, only {held}"
            f"{remedy if _UNKNOWN in item.skipped.kinds else ''}"
        )
    return groups


def _meant(item: Listed, groups: dict[str, list[ObjectInfo]], format: str | None) -> dict[str, list[ObjectInfo]]:
    """Return the groups that a folder stands for: ``format``, or by default all but manifests beside others."""
    if format is not None:
        others, reason = groups.keys() - {format}, f"of another format than {format}"
    else:
        others = {Manifest.name} & groups.keys() if len(groups) > 1 else set()
        reason = "manifests beside other files"
    for name in others:
        for entry in groups[name]:
            item.skipped.add(reason, escape_invalid_utf8(shown_name(item.root, entry.name)))
    meant = {name: entries for name, entries in groups.items() if name not in others}
    if len(meant) > 1:
        counts = ", ".join(f"{len(e)} of {f} ({e[0].name})" for f, e in meant.items())
        raise SourceError(
            f"{redact(item.root)}: a mix of formats: {counts}; set the option format to the one that is meant"
        )
    return meant


def _known() -> str:
    return ", ".join(dict.fromkeys(extension for name in FORMATS for extension in FORMATS[name].extensions))


def _format_of(uri: str) -> str | None:
    return next((name for name in FORMATS if _has_extension(uri, name)), None)


def _has_extension(uri: str, format: str) -> bool:
    return without_query(uri).lower().endswith(FORMATS[format].extensions)
