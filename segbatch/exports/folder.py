"""The folder of an export: files of the format, and the state by which an export is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.exports.format import PartCounts
from segbatch.storage.store import TEMPORARY, Store

# Written last: what is exported, with counts.
DONE = "_export.json"
ERRORS = "errors.jsonl"
NAMES = "names.parquet"
# While an export is not complete: what is being exported; of each part its images and errors, and its fragment.
PLAN = "_export/plan.json"
_PARTS = "_export/parts"
_FRAGMENTS = "_export/fragments"
_STATE = (_PARTS, _FRAGMENTS, "_export")
_COUNTS = b"segbatch.counts"

ROWS = pa.schema(
    [
        ("image_id", pa.string()),
        ("file", pa.string()),
        ("number", pa.int64()),
        ("image", pa.string()),
        ("stage", pa.string()),
        ("type", pa.string()),
        ("message", pa.string()),
    ]
)


class StorePart:
    """One part of an export on a store, see ``format.PartFolder``."""

    def __init__(self, store: Store, name: str) -> None:
        self.name, self._store = name, store

    def write(self, path: str, data: bytes) -> None:
        self._store.write(path, data)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self._store.stream(path)

    def fragment(self) -> AbstractContextManager[BinaryIO]:
        return self._store.stream(f"{_FRAGMENTS}/{self.name}")

    def complete(self, rows: pa.Table, counts: PartCounts) -> None:
        """Record that all files of the part are written.

        Args:
            rows: Its images and error rows, of the schema ``ROWS``.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata({_COUNTS: json.dumps(vars(counts)).encode()}), sink)
        self._store.write(f"{_PARTS}/{self.name}", sink.getvalue().to_pybytes())


class TargetFolder:
    """The folder of an export on a store, see ``format.ExportFolder``.

    Args:
        names: Names of all parts, in order.
    """

    def __init__(self, store: Store, names: Sequence[str] = ()) -> None:
        self.store, self._names = store, names

    def write(self, path: str, data: bytes) -> None:
        self.store.write(path, data)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self.store.stream(path)

    def lines(self) -> Iterator[bytes]:
        present = set(self.store.names(_FRAGMENTS))
        for name in (name for name in self._names if name in present):
            with self.store.open(f"{_FRAGMENTS}/{name}") as f:
                for line in f:
                    yield line.removesuffix(b"\n")

    def complete_parts(self) -> set[str]:
        """List the parts that are complete."""
        return set(self.store.names(_PARTS))

    def rows(self) -> Iterator[pa.Table]:
        """Read the images and error rows of each part, in order."""
        for name in self._names:
            yield self._part(name)

    def counts(self) -> PartCounts:
        """Sum what all parts hold."""
        total = PartCounts()
        for name in self._names:
            with self.store.open(f"{_PARTS}/{name}") as f:
                metadata = pq.read_schema(f).metadata
            total = total.plus(PartCounts(**json.loads(metadata[_COUNTS])))
        return total

    def _part(self, name: str) -> pa.Table:
        with self.store.open(f"{_PARTS}/{name}") as f:
            return pq.read_table(f).replace_schema_metadata()

    def foreign(self) -> list[str]:
        """List what is in the folder, if an export has not begun there."""
        names = [name for name in self.store.names("") if name != TEMPORARY]
        return [] if DONE in names or self.store.exists(PLAN) else sorted(names)

    def remove_state(self) -> None:
        """Remove what only an export that is not complete needs."""
        for folder in _STATE[:2]:
            self.store.remove_all(f"{folder}/{name}" for name in self.store.names(folder))
        self.store.remove(PLAN)
        for folder in _STATE:
            self.store.remove_empty(folder)
        self.store.clean_temporary_files()
