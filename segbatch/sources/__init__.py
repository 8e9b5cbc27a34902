"""Inputs of any mix of formats as one source of shards and chunks. Nothing here knows of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from segbatch.errors import SourceError
from segbatch.records import ALL_CHUNKS, Chunk, ChunkSelection, Corpus, Shard
from segbatch.skipped import Skipped
from segbatch.sources.chunking import DEFAULT_MAX_RECORD_BYTES, KeyRule, ReadOptions
from segbatch.sources.corpus import OutsideRoot, common_root, divided, prefix_below
from segbatch.sources.first_bytes import mistaken_files
from segbatch.sources.first_members import contradiction
from segbatch.sources.formats import by_format
from segbatch.sources.images import Images, image_entry, image_shard
from segbatch.sources.manifest import Manifest, is_parquet
from segbatch.sources.parquet import Parquet
from segbatch.sources.table_survey import refuse_no_images, survey_tables
from segbatch.sources.webdataset import WebDataset
from segbatch.storage.files import Files, shown_name, shown_uri
from segbatch.storage.listing import Listed, list_input
from segbatch.storage.tables import refuse_tables
from segbatch.storage.uri import join
from segbatch.storage.walk import ObjectInfo
from segbatch.text import escape_invalid_utf8, redact

# A new format is a file here, a line in this table, and one in formats.py.
_READERS: dict[str, Callable[[Files, ReadOptions], WebDataset | Parquet | Images | Manifest]] = {
    "webdataset": WebDataset,
    "parquet": Parquet,
    "images": Images,
    "manifest": Manifest,
}
_TARS_LOOKED_AT = 3


def open_source(
    inputs: list[str],
    *,
    storage_options: dict[str, Any] | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    uri_column: str = "uri",
    format: str | None = None,
    max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES,
    key: KeyRule = "first-dot",
    image_member: str | None = None,
    label_column: str | None = None,
    is_resumed: bool = False,
) -> AnySource:
    """A source over any mix of tars, Parquet files, folders, globs and manifests.

    ``format`` (webdataset, parquet, images, manifest) settles what names do not tell. ``label_column`` is a Parquet
    column, or the ending of a tar's members, that holds labels. ``is_resumed``: an output of these inputs
    exists, whose column of images applies. Nothing is read before ``corpus()``. Picklable.
    """
    if format is not None and format not in _READERS:
        raise SourceError(f"format {format!r} is unknown; known: {', '.join(_READERS)}")
    options = ReadOptions(
        image_column, id_column, uri_column, max_record_bytes, key, image_member, label_column, is_resumed
    )
    return AnySource(list(inputs), Files(storage_options), options, format)


class AnySource:
    """Implements ``interfaces.Source``; each shard is read by its format."""

    def __init__(self, inputs: list[str], files: Files, options: ReadOptions, format: str | None) -> None:
        self._inputs, self._files, self._options, self._format = inputs, files, options, format

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection = ALL_CHUNKS) -> Iterator[Chunk]:
        return _READERS[shard.format](self._files, self._options).chunks(shard, size, wanted)

    def shards(self) -> Iterator[Shard]:
        """See ``interfaces.Source``."""
        return iter(self.corpus().shards)

    def corpus(self, root: str | None = None) -> Corpus:
        """See ``interfaces.Source``."""
        listed = [(given, item) for given in self._inputs for item in list_input(self._files, given)]
        if root is None:
            root = common_root([redact(item.root) for _, item in listed])
        found: list[Shard] = []
        images: list[ObjectInfo] = []
        skipped = Skipped()
        for given, item in listed:
            prefix = prefix_below(root, redact(item.root), given)
            groups = by_format(item, self._format)
            if item.by != "name":
                chosen = [e.name for entries in groups.values() for e in entries]
                refuse_tables(self._files, item.root, chosen, item.marks, whole=item.by == "folder")
            skipped.merge(item.skipped.below(escape_invalid_utf8(prefix)))
            for format, entries in groups.items():
                if format == "images":
                    images.extend(image_entry(root, prefix, item.root, e) for e in entries)
                else:
                    found.extend(
                        Shard(
                            uri=join(item.root, e.name),
                            name=prefix + shown_name(item.root, e.name),
                            format=format,
                            version=e.version,
                            size=e.size,
                        )
                        for e in entries
                    )
        if images:
            found.append(image_shard(root, images))
        _refuse_twice([item for _, item in listed], found)
        tables = survey_tables(self._files, found, self._options, self._format)
        notes = tables.notes
        if self._options.image_member is not None and any(s.format == "webdataset" for s in found):
            notes = (*notes, ("images", f"member {self._options.image_member} of each sample"))
        return Corpus(root, tables.shards, skipped, tables.image_column, notes, tables.warnings)

    def check(self, shards: Sequence[Shard]) -> None:
        """See ``interfaces.Source``. Looks into the first few tars: a request each, or headers of a local file.

        The first few files of each format must not all be files of another kind, such as Git LFS pointers. Of the
        first table with rows, one of the first values must be an image, unless its column was named.
        """
        if mistaken := list(mistaken_files(self._files, shards, self._format)):
            raise SourceError("\n".join(mistaken))
        if self._options.image_column is None:
            refuse_no_images(self._files, shards)
        tars = [shard for shard in shards if shard.format == "webdataset"][:_TARS_LOOKED_AT]
        found = [(shard, contradiction(self._files, shard, self._options)) for shard in tars]
        problems = [f"{shown_uri(shard.uri)}: {problem}" for shard, problem in found if problem is not None]
        if problems:
            raise SourceError("\n".join(problems))


def _refuse_twice(listed: list[Listed], shards: list[Shard]) -> None:
    seen: set[str] = set()
    for item in listed:
        for entry in item.entries:
            uri = redact(join(item.root, entry.name))  # the same object, whatever signs it
            if uri in seen:
                raise SourceError(f"{uri}: is named by two inputs; each shard may be given once")
            seen.add(uri)
    names: set[str] = set()
    for shard in shards:
        if shard.name in names:
            raise SourceError(f"{shard.name}: two shards would have this name; give their common folder as the input")
        names.add(shard.name)


__all__ = ["AnySource", "OutsideRoot", "divided", "is_parquet", "open_source"]
