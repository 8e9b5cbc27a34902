"""What the plan finds out about Parquet files and manifests: how many records they have, and which columns to read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from segbatch.errors import RecordFailure, SourceError
from segbatch.records import Shard, digest
from segbatch.sources.chunking import ReadOptions
from segbatch.sources.columns import ColumnChoice, Columns, NoImages, SeveralColumns, choose, shown
from segbatch.sources.fields import Fields
from segbatch.sources.first_values import FirstValues
from segbatch.sources.ids import is_text, plain
from segbatch.sources.manifest import Surveyed, survey
from segbatch.sources.rows import open_rows
from segbatch.storage.files import Files, shown_uri

_FOOTER_READERS = 8


@dataclass(frozen=True)
class Tables:
    """See ``chunk.Corpus``."""

    shards: list[Shard]
    image_column: str | None
    notes: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass
class _Group:
    """Files of one schema, by their places among the shards."""

    schema: pa.Schema
    places: list[int]
    choice: ColumnChoice | None = None


def survey_tables(files: Files, shards: list[Shard], options: ReadOptions, format: str | None) -> Tables:
    """The shards with their number of records, where a footer or a manifest tells it, and the columns to read.

    Columns are chosen once for all files of one schema. A Parquet file without images that has a column of URIs is a
    manifest, unless ``format`` is given. Raises ``SourceError`` if columns of the first schema, or several that may be
    meant of any schema, cannot be told apart.
    """
    with ThreadPoolExecutor(_FOOTER_READERS) as pool:
        counted = list(pool.map(lambda shard: _count(files, shard, options), shards))
    found = [shard for shard, _ in counted]
    manifests = [told for _, told in counted if isinstance(told, Surveyed)]
    groups: dict[str, _Group] = {}
    for place, (_, told) in enumerate(counted):
        if isinstance(told, pa.Schema):
            key = digest(str(told.remove_metadata()), length=32)
            groups.setdefault(key, _Group(told, [])).places.append(place)
    for first, group in enumerate(groups.values()):
        members = [found[place] for place in group.places]
        try:
            group.choice = _choose(files, members, options)
        except NoImages as e:
            if format is None and _names_images(group.schema, options):
                manifest = survey(files, members[0].uri, options)
                manifests += [manifest] * len(members)
                for place in group.places:
                    found[place] = replace(found[place], format="manifest")
            elif first == 0:
                raise SourceError(f"{shown_uri(members[0].uri)}: {e}") from None
        except SourceError as e:
            has_rows = any(shard.records for shard in members)
            if has_rows if isinstance(e, SeveralColumns) else first == 0:
                raise SourceError(f"{shown_uri(members[0].uri)}: {e}") from None
        if group.choice is not None:
            listing = group.choice.columns.to_bytes()
            for place in group.places:
                found[place] = replace(found[place], listing=listing)
    return _tables(found, list(groups.values()), manifests)


def _count(files: Files, shard: Shard, options: ReadOptions) -> tuple[Shard, pa.Schema | Surveyed | None]:
    """A shard with its number of records, and the schema of a Parquet file, or what was found out about a manifest."""
    if shard.format == "manifest":
        manifest = survey(files, shard.uri, options)
        return replace(shard, records=manifest.records, listing=manifest.listing), manifest
    if shard.format != "parquet":
        return shard, None
    try:
        with open_rows(files, shard.uri) as rows:
            return replace(shard, records=rows.records), rows.schema
    except RecordFailure:  # it is an error row when it is read
        return shard, None


def _choose(files: Files, shards: Sequence[Shard], options: ReadOptions) -> ColumnChoice:
    with_rows = [shard.uri for shard in shards if shard.records]
    with FirstValues(files, with_rows or [shards[0].uri]) as values:
        return choose(values, options)


def _names_images(schema: pa.Schema, options: ReadOptions) -> bool:
    """Whether a table has the column of URIs."""
    kind = Fields.of(schema).kinds.get(options.uri_column)
    return kind is not None and is_text(plain(kind))


def _tables(shards: list[Shard], groups: Sequence[_Group], manifests: Sequence[Surveyed]) -> Tables:
    choices = [(group, group.choice) for group in groups if group.choice is not None]
    notes: dict[tuple[str, str], int] = {}
    for group, choice in choices:
        for note in (("images", choice.image), ("ids", choice.ids)):
            notes[note] = notes.get(note, 0) + len(group.places)
    for manifest in manifests:
        for note in (("images", manifest.images), ("ids", manifest.ids)):
            notes[note] = notes.get(note, 0) + 1
    total = sum(len(group.places) for group, _ in choices) + len(manifests)
    said = tuple(
        (name, text if count == total else f"{text} ({count:,} of {total:,} tables)")
        for (name, text), count in notes.items()
    )
    columns = {shown(choice.columns.image) for _, choice in choices}
    pinned = columns.pop() if len(columns) == 1 and any(choice.by_values for _, choice in choices) else None
    return Tables(shards, pinned, said, tuple(dict.fromkeys(w for _, choice in choices for w in choice.warnings)))


def refuse_no_images(files: Files, shards: Sequence[Shard]) -> None:
    """Raise ``SourceError`` if the first table with rows holds no image among the first values of its column."""
    table = next((s for s in shards if s.format == "parquet" and s.records and s.listing), None)
    if table is None or table.listing is None:
        return
    columns = Columns.from_bytes(table.listing)
    with FirstValues(files, [table.uri]) as values:
        sample = values.sample(columns.image, columns.path)
    if sample.lengths and not sample.has_images:
        raise SourceError(
            f"{shown_uri(table.uri)}: column {shown(columns.image)} holds no image in its first rows: {sample.says}; "
            "choose another column by --image-column, or name this one if its images are further down"
        )
