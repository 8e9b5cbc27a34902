"""Rows of CSV and JSONL files by number, with unique ids."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from segbatch.contents import recognized
from segbatch.errors import RecordFailure, SourceError
from segbatch.sources.formats import ReadOptions
from segbatch.sources.ids import number_text
from segbatch.sources.line_stream import LineStream
from segbatch.sources.unique_ids import RenamedIds, id_hash
from segbatch.storage.files import Files, shown_name
from segbatch.storage.uri import folder_of
from segbatch.text import escape_invalid_utf8, redact, redact_text, without_query

ID_NAMES = ("image_id", "id", "key", "__key__")
MAX_OFFSETS = 2048
_MAX_SHOWN = 30
_SLICE_BLOCK_BYTES = 64 * 2**10  # some hundred rows
_MAX_COLUMNS = 1000
# Words in names of columns that are suggested for an option.
_WORDS = {
    "uri_column": set("uri uris url urls path paths file files filename filepath href src link image img".split()),
    "id_column": set("id ids key keys uuid guid name filename".split()),
}


class Line(NamedTuple):
    """Content of one row.

    Attributes:
        uri: Where the image is.
        name: Id, redacted.
        problem: Why the row has neither.
    """

    uri: str | None
    name: str | None = None
    problem: RecordFailure | None = None


@dataclass(frozen=True)
class TextIndex:
    """Layout of a text manifest: the result of one pass, so that later ones start in the middle.

    Attributes:
        records: Number of rows.
        size: Bytes of the file, as stored.
        every: Rows between two offsets.
        offsets: (byte, line number) of the rows 0, ``every``, 2 * ``every``, …
        renamed: Ids that are not unique.
    """

    records: int
    size: int
    every: int
    offsets: list[tuple[int, int]]
    renamed: RenamedIds


class TextRows:
    """An open CSV, TSV or JSONL file, compressed by gzip if its name ends in ``.gz``.

    Args:
        is_slice: Whether only some rows will be read: a remote file is then requested in small blocks.

    Raises:
        SourceError: There is no column of URIs. Errors of the store and of gzip are passed on.
    """

    def __init__(self, files: Files, uri: str, options: ReadOptions, *, is_slice: bool = False) -> None:
        name = without_query(uri).lower()
        self._uri, self._folder, self._options = uri, folder_of(uri), options
        self._json = name.removesuffix(".gz").endswith((".jsonl", ".ndjson"))
        self._columns: dict[str, None] = {}  # header of a CSV, keys of the first lines of JSONL
        self._delimiter = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
        with ExitStack() as stack:
            stream = cast(io.BufferedReader, stack.enter_context(files.open(uri, read_ahead=not is_slice)))
            self._raw = io.BufferedReader(stream, _SLICE_BLOCK_BYTES) if is_slice else stream
            self._size = self._raw.seek(0, 2)
            self._raw.seek(0)
            self._stream: BinaryIO = gzip.GzipFile(fileobj=self._raw) if name.endswith(".gz") else self._raw  # type: ignore[assignment]
            self._begin = self._after_header()
            self._opened = stack.pop_all()

    def __enter__(self) -> TextRows:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def index(self, max_offsets: int = MAX_OFFSETS) -> TextIndex:
        """Read the whole file once, holding 8 bytes per row.

        Args:
            max_offsets: With more, every second one is dropped.

        Raises:
            SourceError: No line of JSONL has a column that an option names.
        """
        offsets: list[tuple[int, int]] = []
        every, row, hashes = 1024, -1, array("Q")
        for row, (at, number, line) in enumerate(self._lines(*self._begin)):
            if row % every == 0:
                if len(offsets) == max_offsets:
                    offsets, every = offsets[::2], every * 2
                if row % every == 0:
                    offsets.append((at, number))
            hashes.append(id_hash(_name(line, row)))
        if self._columns:
            self._check(self._options.uri_column, "uri_column")
            self._check(self._options.id_column, "id_column")
        return TextIndex(
            row + 1, self._size, every, offsets, RenamedIds.pack(self._renamed(np.frombuffer(hashes, np.uint64)))
        )

    def rows(self, ranges: Sequence[range], index: TextIndex) -> Iterator[tuple[int, str, Line]]:
        """Yield (row, unique id, content) of the rows in the ascending, disjoint ``ranges``.

        Reading starts at the last offset before a range.

        Raises:
            SourceError: The size of the file has changed since it was indexed.
        """
        if index.size != self._size:
            raise SourceError(
                f"{redact(self._uri)}: has {self._size} bytes, {index.size} when the job was planned; run the job again"
            )
        id_of = index.renamed.mapping()
        row, lines = 0, self._lines(*self._begin)
        for wanted in ranges:
            offset = wanted.start // index.every
            if wanted and offset * index.every > row:
                row, lines = offset * index.every, self._lines(*index.offsets[offset])
            while row < wanted.stop:
                line = next(lines, None)
                if line is None:
                    return
                if row >= wanted.start:
                    yield row, id_of(_name(line[2], row), row), line[2]
                row += 1

    def _renamed(self, hashes: np.ndarray) -> dict[int, str]:
        """Return the rows whose id occurred before, each with an id that no row has, ``id#row`` if possible."""
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        repeated = set(order[1:][ordered[1:] == ordered[:-1]].tolist())
        renamed: dict[int, str] = {}
        taken: set[int] = set()
        for row, (_, _, line) in enumerate(self._lines(*self._begin) if repeated else ()):
            if row in repeated:
                name = f"{_name(line, row)}#{row}"
                while (code := id_hash(name)) in taken or _holds(ordered, code):
                    name = f"{name}#{row}"
                taken.add(code)
                renamed[row] = name
        return renamed

    def _after_header(self) -> tuple[int, int]:
        """Return (byte, line number) of the first row, after reading the header of a CSV."""
        allowed = {"gzip data"} if self._stream is not self._raw else {"JSON"} if self._json else set()
        if other := recognized(self._raw.peek(), allowed):  # peek: reading a short remote file would request it twice
            raise SourceError(f"{redact(self._uri)}: not a manifest, but {other}")
        if self._stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise SourceError(f"{redact(self._uri)}: is UTF-16; save it as UTF-8")
        if self._json:
            return 0, 0
        lines = LineStream(self._stream, 0, 0)
        try:
            header = next(csv.reader(lines, delimiter=self._delimiter, strict=True), None) or []
        except csv.Error as e:
            raise SourceError(f"{redact(self._uri)}: its first line is not a header of columns: {e}") from None
        names = [escape_invalid_utf8(name).strip() for name in header]
        self._columns = dict.fromkeys(names)
        self._at = self._column(names, self._options.uri_column, "uri_column")
        key = self.id_column
        self._key = None if key is None else self._column(names, key, "id_column")
        return lines.at, lines.number

    @property
    def id_column(self) -> str | None:
        """Column of the ids, known for JSONL once it is indexed; None if the URIs are the ids."""
        return self._options.id_column or next((name for name in ID_NAMES if name in self._columns), None)

    def _column(self, names: list[str], name: str, option: str) -> int:
        self._check(name, option)
        if names.count(name) > 1:
            raise SourceError(
                f"{redact(self._uri)}: {names.count(name)} columns are called {name!r}; rename them, or set the "
                f"option {option} to another one: {', '.join(names[:_MAX_SHOWN])}"
            )
        return names.index(name)

    def _check(self, name: str | None, option: str) -> None:
        if name is None or name in self._columns:
            return
        columns = list(map(escape_invalid_utf8, self._columns))
        near = [column for column in columns if set(re.split(r"[^a-z]+", column.lower())) & _WORDS[option]]
        hint = f" to the one that is meant, such as {' or '.join(near[:_MAX_SHOWN])}" if near else ""
        raise SourceError(
            f"{redact(self._uri)}: no column {name!r}; the columns are "
            f"{', '.join(columns[:_MAX_SHOWN]) or 'none'}; set the option {option}{hint}"
        )

    def _lines(self, at: int, number: int) -> Iterator[tuple[int, int, Line]]:
        """Yield (byte, line number, content) of the rows from a byte on."""
        lines = LineStream(self._stream, at, number)
        return self._json_lines(lines) if self._json else self._csv_lines(lines)

    def _csv_lines(self, lines: LineStream) -> Iterator[tuple[int, int, Line]]:
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        at, key = self._at, self._key
        while True:
            begin, number = lines.begin_row()
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as e:
                lines.rewind()  # a quote that is not closed spans the following rows; only its own line is an error
                yield begin, number, _bad(f"line {number + 1} is not CSV: {e}")
                continue
            if row:
                uri = escape_invalid_utf8(row[at]).strip() if at < len(row) else ""
                yield begin, number, self._line(uri, row[key] if key is not None and key < len(row) else "")

    def _json_lines(self, lines: LineStream) -> Iterator[tuple[int, int, Line]]:
        while True:
            begin, number = lines.begin_row()
            text = next(lines, None)
            if text is None:
                return
            if text.strip():
                yield begin, number, self._json_line(text, number + 1)

    def _json_line(self, text: str, number: int) -> Line:
        column = self._options.uri_column
        try:
            row: Any = json.loads(text)
        except (ValueError, RecursionError) as e:
            return _bad(f"line {number} is not JSON: {e}")
        if not isinstance(row, dict):
            return _bad(f"line {number} is not an object with {column!r}: {redact_text(text.strip())[:80]}")
        if new := row.keys() - self._columns.keys():
            wanted = (column, self._options.id_column)
            self._columns.update(
                (n, None) for n in row if n in new and (n in wanted or len(self._columns) < _MAX_COLUMNS)
            )
        value = row.get(column)
        names = [self._options.id_column] if self._options.id_column else ID_NAMES
        key = next((text for name in names if (text := _id_text(row.get(name)))), "")
        return self._line(escape_invalid_utf8(value).strip() if isinstance(value, str) else "", key)

    def _line(self, uri: str, key: str) -> Line:
        return Line(uri or None, redact(key) or shown_name(self._folder, uri) or None)


def _id_text(value: Any) -> str:
    """Return a JSON value as an id, ``""`` for other types."""
    if isinstance(value, float):
        return number_text(value)
    return str(value) if isinstance(value, str | int) else ""


def _name(line: Line, row: int) -> str:
    return line.name or f"#{row}"


def _bad(message: str) -> Line:
    return Line(None, None, RecordFailure("read", "BadManifestRow", escape_invalid_utf8(message)))


def _holds(ordered: np.ndarray, value: int) -> bool:
    at = int(np.searchsorted(ordered, np.uint64(value)))
    return at < len(ordered) and int(ordered[at]) == value
