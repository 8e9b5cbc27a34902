"""The first values of the columns of a table: images and their sizes, or other bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import pyarrow as pa

from segbatch.codecs.header import image_format, image_size
from segbatch.contents import looks_like
from segbatch.errors import RecordFailure
from segbatch.sources.cells import cell_bytes
from segbatch.sources.ids import texts
from segbatch.sources.rows import ParquetRows, open_rows
from segbatch.storage.files import Files

_MAX_VALUES = 8  # per column: one batch of rows
_MAX_ROWS = 4096  # searched in a file for values that are not null
_MAX_FILES = 3  # searched if the first one has no value
_DIGEST_BYTES = (16, 20, 28, 32, 48, 64)

Place = tuple[int, int]


@dataclass
class ColumnSample:
    """The first values of a column.

    Attributes:
        description: Description of the first value: ``JPEG 48 x 64``.
        sizes: (height, width) of images by their places, None if the header does not contain it.
        lengths: Bytes of all values, -1 for a value that cannot be converted to bytes.
        has_paths: Whether the values are null, and a text beside them names images.
    """

    path: str
    description: str = "null in the first rows"
    sizes: dict[Place, tuple[int, int] | None] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    has_paths: bool = False

    @property
    def has_images(self) -> bool:
        return bool(self.sizes)

    @property
    def is_empty(self) -> bool:
        return not self.lengths and not self.has_paths

    @property
    def is_digest(self) -> bool:
        """Whether no value is an image, and all have the length of a digest."""
        return not self.sizes and len(set(self.lengths)) == 1 and self.lengths[0] in _DIGEST_BYTES

    def is_as_large_as(self, other: ColumnSample) -> bool:
        """Whether no image is smaller than that of the other column in the same row, and some can be compared."""
        if other is self:
            return True
        both = [(a, b) for place, a in self.sizes.items() if a and (b := other.sizes.get(place))]
        return bool(both) and all(a[0] * a[1] >= b[0] * b[1] for a, b in both)

    def add(self, place: Place, value: pa.Scalar) -> None:
        """Add a value that is not null."""
        try:
            data = cell_bytes(value).to_pybytes()
        except RecordFailure as e:  # no bytes at all
            self.lengths.append(-1)
            self.description = self.description if self.sizes else e.message
            return
        self.lengths.append(len(data))
        kind = image_format(data)
        other = "" if kind else looks_like(data)
        if kind or other.endswith(" image"):
            size = image_size(data)
            if not self.sizes:
                self.description = f"{kind or other}{f' {size[0]} x {size[1]}' if size else ''}"
            self.sizes[place] = size
        elif len(self.lengths) == 1:
            self.description = f"{len(data):,} bytes that are not an image{f', {other}' if other else ''}"


class FirstValues:
    """The first values of columns of files with one schema; of later files if all values of the first are null."""

    def __init__(self, files: Files, uris: Sequence[str]) -> None:
        self._files, self._uris = files, uris[:_MAX_FILES]
        self._stack = ExitStack()
        self._opened: dict[str, ParquetRows | None] = {}
        self._samples: dict[str, ColumnSample] = {}
        first = self._stack.enter_context(open_rows(files, uris[0], first_rows=True))
        self._opened[uris[0]], self.schema = first, first.schema

    def __enter__(self) -> FirstValues:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def sample(self, path: str, beside: str | None = None) -> ColumnSample:
        """Return the first values of a column; if all are null, whether column ``beside`` names images."""
        if path not in self._samples:
            sample = self._samples[path] = ColumnSample(path)
            for place, value in itertools.islice(self._values(path), _MAX_VALUES):
                sample.add(place, value)
            if not sample.lengths and beside is not None:
                named = next((t for _, v in self._values(beside) if (t := texts(pa.array([v]))[0])), "")
                sample.has_paths, sample.description = bool(named), "paths of images" if named else sample.description
        return self._samples[path]

    def _values(self, path: str) -> Iterator[tuple[Place, pa.Scalar]]:
        for i, uri in enumerate(self._uris):
            rows = self._open(uri)
            for row in rows.rows([range(min(rows.records, _MAX_ROWS))], path, None) if rows else ():
                if row.value is not None and row.value.is_valid:
                    yield (i, row.number), row.value

    def _open(self, uri: str) -> ParquetRows | None:
        if uri not in self._opened:
            try:
                self._opened[uri] = self._stack.enter_context(open_rows(self._files, uri, first_rows=True))
            except RecordFailure:  # an error row, when it is read
                self._opened[uri] = None
        return self._opened[uri]
