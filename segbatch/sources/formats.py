"""Formats by the names of files: which entries of a listing are read as what, and which are skipped."""

from __future__ import annotations

from segbatch.contents import archive_by_name
from segbatch.errors import MissingInput, SourceError
from segbatch.storage.files import shown_name, shown_uri
from segbatch.storage.listing import Listed
from segbatch.storage.uri import join
from segbatch.storage.walk import ObjectInfo
from segbatch.text import escape_invalid_utf8, without_query

EXTENSIONS = {
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    "parquet": (".parquet", ".pq"),
    # Those of the last row are not all read: records with an error, so that they are not passed over in silence.
    "images": (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib"),
        *(".gif", ".avif", ".avifs"),
        *(".heic", ".heif", ".hif", ".heics", ".heifs", ".jxl", ".jp2"),
    ),
    "manifest": (".csv", ".tsv", ".jsonl", ".ndjson", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".ndjson.gz"),
}
_UNKNOWN = "with an unknown suffix"


def by_format(item: Listed, format: str | None) -> dict[str, list[ObjectInfo]]:
    """The entries of an input by format; those that are not read are counted in ``item.skipped``.

    ``format`` settles what names do not tell, and in a folder which names are meant. Raises ``SourceError`` if nothing
    is left, for a folder of several formats, and for a file given by its name, if that tells no format.
    """
    groups: dict[str, list[ObjectInfo]] = {}
    for entry in item.entries:
        found = format if format and item.by != "folder" else _format_of(join(item.root, entry.name))
        if found is not None:
            groups.setdefault(found, []).append(entry)
        elif item.by in ("folder", "pattern"):
            item.skipped.add(_UNKNOWN, escape_invalid_utf8(shown_name(item.root, entry.name)))
        else:
            uri = join(item.root, entry.name)
            if archive := archive_by_name(without_query(uri)):
                raise SourceError(f"{shown_uri(uri)}: by its name {archive}")
            raise SourceError(
                f"{shown_uri(uri)}: its name tells no format; known: {_known()}; or set the option format"
            )
    if item.by == "folder":
        groups = _meant(item, groups, format)
    if not groups:
        held = "; ".join(item.skipped.lines()) or "nothing"
        remedy = f"; known: {_known()}; or give them by a pattern, and set the option format"
        archive = next(filter(None, (archive_by_name(entry.name) for entry in item.entries)), "")
        if archive:
            remedy = f"; that is {archive}"
        raise MissingInput(
            f"{shown_uri(item.root)}: holds no shard and no image, only {held}"
            f"{remedy if _UNKNOWN in item.skipped.kinds else ''}"
        )
    return groups


def _known() -> str:
    return ", ".join(extension for group in EXTENSIONS.values() for extension in group)


def _meant(item: Listed, groups: dict[str, list[ObjectInfo]], format: str | None) -> dict[str, list[ObjectInfo]]:
    """Of a folder: what is of ``format``, or without one all but the manifests beside other files."""
    if format is not None:
        read_as = {format: format, **({"parquet": "manifest"} if format == "manifest" else {})}
        reason = f"of another format than {format}"
    else:
        read_as = {name: name for name in groups if name != "manifest" or len(groups) == 1}
        reason = "manifests beside other files"
    meant: dict[str, list[ObjectInfo]] = {}
    for name, entries in groups.items():
        if name in read_as:
            meant.setdefault(read_as[name], []).extend(entries)
        else:
            for entry in entries:
                item.skipped.add(reason, escape_invalid_utf8(shown_name(item.root, entry.name)))
    if len(meant) > 1:
        counts = ", ".join(f"{len(e)} of {f} ({e[0].name})" for f, e in meant.items())
        raise SourceError(
            f"{shown_uri(item.root)}: a mix of formats: {counts}; set the option format to the one that is meant"
        )
    return meant


def _format_of(uri: str) -> str | None:
    lower = without_query(uri).lower()
    return next((f for f, extensions in EXTENSIONS.items() if lower.endswith(extensions)), None)
