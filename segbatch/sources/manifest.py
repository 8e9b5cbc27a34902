"""Manifests: a CSV, JSONL or Parquet file whose rows name images by URI."""

from __future__ import annotations

import csv
import gzip
import io
import json
import posixpath
from collections.abc import Collection, Iterator
from typing import BinaryIO, NamedTuple

from segbatch.chunk import Chunk, Record, Shard
from segbatch.errors import RecordFailure, SourceError
from segbatch.sources.chunking import ReadOptions, UniqueIds, check_size, chunks_by_number, wanted_rows
from segbatch.sources.fetch import fetch
from segbatch.sources.io import Files, shown_uri, split_uri
from segbatch.sources.listing import join
from segbatch.sources.parquet import describe, id_column, open_rows, row_id
from segbatch.sources.rows import is_text

_ID_NAMES = ("image_id", "id", "key", "__key__")
_LINE = 16 * 2**20
_NEAR_NAMES = ("url", "path", "file", "image", "filename", "file_name", "image_path", "image_uri", "s3_uri")


class Line(NamedTuple):
    """What one row of a manifest says: where the image is, what it is called, or why that cannot be told."""

    uri: str | None
    id: str | None = None
    problem: str | None = None


class Manifest:
    """Reads the images that the rows of a manifest name, several at once, in the order of the rows.

    URIs are absolute, or relative to the manifest's folder. Ids come from the column that ``id_column`` names,
    from ``image_id, id, key, __key__``, or else are the URIs as written. Error rows: MissingUri,
    BadManifestRow, CorruptRowGroup, MissingObject, UnreadableObject, RecordTooLarge.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, skip: Collection[int] = ()) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Images of chunks in ``skip`` are not read, nor are Parquet rows."""
        check_size(size)
        total = shard.records if shard.records is not None else count(self._files, shard.uri, self._options)
        records = fetch(self._files, self._wanted(shard, total, size, skip), self._options.max_record_bytes)
        return chunks_by_number(records, shard, total, size, skip)

    def _wanted(
        self, shard: Shard, total: int, size: int, skip: Collection[int]
    ) -> Iterator[tuple[Record, str, int | None]]:
        folder = posixpath.dirname(shard.uri)
        ranges = [rows for _, rows, _ in wanted_rows(total, size, skip)]
        for row, name, line in self._lines(shard, ranges):
            uri = line.uri
            if uri is not None and not ("://" in uri or uri.startswith("/")):
                uri = join(folder, uri.removeprefix("./"))
            if uri is None:
                record = Record(row_id(shard, row, name), shown_uri(shard.uri), row)
                kind = "MissingUri" if line.problem is None else "BadManifestRow"
                where = f"{shown_uri(shard.uri)}, row {row}"
                why = line.problem or f"no value in column {self._options.uri_column!r}"
                yield record.failed("read", kind, f"{where}: {why}"), "", None
            elif isinstance(line, _Unread):
                raise AssertionError("an unread row has no URI")
            else:
                yield Record(row_id(shard, row, name), shown_uri(uri), row), uri, None

    def _lines(self, shard: Shard, ranges: list[range]) -> Iterator[tuple[int, str, Line]]:
        """(row, unique id, what it says) of the rows in ``ranges``."""
        stop = max((r.stop for r in ranges if len(r)), default=0)
        if kind_of(self._files, shard.uri) == "parquet":
            yield from self._parquet_lines(shard, ranges)
            return
        seen = UniqueIds()
        inside = iter(ranges)
        here = next(inside, range(0))
        with open_text(self._files, shard.uri) as stream:
            for row, line in enumerate(lines(stream, kind_of(self._files, shard.uri), self._options)):
                if row >= stop:
                    return
                name = seen.unique(line.id or line.uri or f"#{row}", row)
                while row >= here.stop:
                    here = next(inside)
                if row in here:
                    yield row, name, line
