"""Planning of Parquet files: numbers of records from footers, and the columns to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import pyarrow as pa

from segbatch.errors import RecordFailure, SourceError
from segbatch.records import Shard, digest
from segbatch.sources.columns import ColumnChoice, Columns, NoImages, SeveralColumns, choose, shown
from segbatch.sources.fields import Fields
from segbatch.sources.first_values import FirstValues
from segbatch.sources.formats import PlannedShards, ReadOptions
from segbatch.sources.ids import is_text, plain
from segbatch.sources.manifest import Manifest, TableIndex
from segbatch.sources.rows import open_rows
from segbatch.sources.slices import RowGroups
from segbatch.sources.unique_ids import RenamedIds
from segbatch.text import redact

_FOOTER_READERS = 8


@dataclass(frozen=True)
class ParquetIndex:
    """Layout of a Parquet shard.

    Attributes:
        columns: Columns to read.
        groups: Its row groups.
        has_paths: Whether the images are not in the table, which names them.
        no_image: Description of the first values if none is an image, else "".
        renamed: Ids that are not unique, once the shard is indexed.
    """

    columns: Columns
    groups: RowGroups
    has_paths: bool
    no_image: str
    renamed: RenamedIds | None = None


@dataclass
class _Group:
    """Files of one schema: their row groups by their positions in the list of shards."""

    schema: pa.Schema
    places: dict[int, RowGroups]
    choice: ColumnChoice | None = None


def plan_tables(shards: list[Shard], options: ReadOptions) -> PlannedShards:
    """Return the shards with their numbers of records, and the columns to read as their layout.

    Columns are chosen once for all files of one schema. Files without images that have a column of URIs become
    manifests, unless ``options.format`` is given.

    Raises:
        SourceError: No columns of the first schema can be chosen, or several columns of any schema may hold the images.
    """
    with ThreadPoolExecutor(_FOOTER_READERS) as pool:
        footers = list(pool.map(lambda shard: _footer(shard, options), shards))
    planned = [footer.shard for footer in footers]
    groups: dict[str, _Group] = {}
    for place, footer in enumerate(footers):
        if footer.schema is not None:
            key = digest(str(footer.schema.remove_metadata()), length=32)
            group = groups.setdefault(key, _Group(footer.schema, {}))
            group.places[place] = footer.groups
    notes: Counter[tuple[str, str]] = Counter()
    for first, group in enumerate(groups.values()):
        notes += _plan_group(group, planned, options, is_first=first == 0)
    choices = [group.choice for group in groups.values() if group.choice is not None]
    columns = {shown(choice.columns.image) for choice in choices}
    pinned = columns.pop() if len(columns) == 1 and any(choice.by_values for choice in choices) else None
    return PlannedShards(planned, notes, tuple(dict.fromkeys(w for choice in choices for w in choice.warnings)), pinned)


def _plan_group(group: _Group, planned: list[Shard], options: ReadOptions, is_first: bool) -> Counter[tuple[str, str]]:
    """Give the shards of a group, in ``planned``, their layout, or make them manifests; return their notes."""
    members = [planned[place] for place in group.places]
    try:
        group.choice = _choose(members, options)
    except NoImages as e:
        if options.format is None and _names_images(group.schema, options):
            notes = Manifest().plan(members[:1], options).notes
            for place, groups in group.places.items():
                planned[place] = replace(planned[place], format=Manifest.name, layout=TableIndex(groups))
            return Counter({note: len(members) for note in notes})
        if is_first:
            raise SourceError(f"{redact(members[0].uri)}: {e}") from None
    except SeveralColumns as e:
        if any(shard.records for shard in members):
            raise SourceError(f"{redact(members[0].uri)}: {e}") from None
    except SourceError as e:
        if is_first:
            raise SourceError(f"{redact(members[0].uri)}: {e}") from None
    if group.choice is None:
        return Counter()
    for place, groups in group.places.items():
        layout = ParquetIndex(group.choice.columns, groups, group.choice.has_paths, group.choice.no_image)
        planned[place] = replace(planned[place], layout=layout)
    return Counter({("images", group.choice.image): len(members), ("ids", group.choice.ids): len(members)})


class _Footer(NamedTuple):
    """A shard with its number of records, and what else its footer tells; no schema if it cannot be read."""

    shard: Shard
    groups: RowGroups
    schema: pa.Schema | None


def _footer(shard: Shard, options: ReadOptions) -> _Footer:
    try:
        with open_rows(options.files, shard.uri) as rows:
            return _Footer(replace(shard, records=rows.records), rows.groups, rows.schema)
    except RecordFailure:  # it is an error row when it is read
        return _Footer(shard, RowGroups.pack([], 0), None)


def _choose(shards: Sequence[Shard], options: ReadOptions) -> ColumnChoice:
    with_rows = [shard.uri for shard in shards if shard.records]
    with FirstValues(options.files, with_rows or [shards[0].uri]) as values:
        return choose(values, options)


def _names_images(schema: pa.Schema, options: ReadOptions) -> bool:
    """Whether a table has the column of URIs."""
    kind = Fields.of(schema).kinds.get(options.uri_column)
    return kind is not None and is_text(plain(kind))


def no_images(shards: Sequence[Shard]) -> str | None:
    """Return one line if the first values of the image column of the first table are not images, else None."""
    table = next((shard for shard in shards if shard.records and shard.layout is not None), None)
    layout = None if table is None else cast(ParquetIndex, table.layout)
    if table is None or layout is None or not layout.no_image:
        return None
    return (
        f"{redact(table.uri)}: column {shown(layout.columns.image)} holds no image in its first rows: "
        f"{layout.no_image}; "
        "choose another column by --image-column, or name this one if its later rows hold images"
    )
