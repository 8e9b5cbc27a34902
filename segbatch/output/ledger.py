"""What is committed, told by one listing; the output is the ledger."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import OutputError
from segbatch.output.layout import MASKS
from segbatch.output.receipt import FOOTER_KEY, Receipt, digest_of, receipts_of
from segbatch.output.schema import schema
from segbatch.output.writer import SEAL_KEY, check_seal
from segbatch.records import ChunkId
from segbatch.storage.retry import is_transient
from segbatch.storage.store import Store

ReadFooters = Callable[[list[str]], Iterator[tuple[str, list[Receipt]]]]

_READERS = 16
_MERGED = re.compile(r"merged-(\d+)-[0-9a-f]{16}\.parquet")


@dataclass
class ShardState:
    """Committed chunks of one version of one shard: their indices, and the index of its last one if known."""

    indices: set[int] = field(default_factory=set)
    last: int | None = None

    @property
    def complete(self) -> bool:
        return self.last is not None and len(self.indices) == self.last + 1

    def filenames(self, shard_id: str) -> Iterator[str]:
        for i in sorted(self.indices):
            yield ChunkId(shard_id, i, i == self.last).filename


@dataclass(frozen=True)
class ResultFile:
    """A result file, and which of its rows count: all (None), or those in ``ranges``, as (start, stop)."""

    name: str
    ranges: tuple[tuple[int, int], ...] | None = None

    def read(self, store: Store, columns: list[str] | None = None) -> pa.Table:
        """The rows that count, as columns of ``schema``. Raises ``OutputError`` for a file that is none of ours."""
        try:
            with store.open(f"{MASKS}/{self.name}") as f:
                table = pq.read_table(f, columns=columns).replace_schema_metadata()
        except (OSError, ValueError, OutputError) as e:
            raise unreadable(store, self.name, e) from e
        if self.ranges is None:
            return table
        return pa.concat_tables([table.slice(0, 0), *(table.slice(a, b - a) for a, b in self.ranges)])


class Ledger:
    """Committed chunks by shard id, and the files that hold them.

    A chunk is a file of its own under its own name, or, after ``segbatch compact``, some rows of a merged file, whose
    footer names its chunks. While files are being replaced a chunk can be in several: then only the one in the newest
    merged file counts, so that no row is ever read twice. ``foreign`` are names below ``masks/`` that this package
    did not give; ``redundant`` are files none of whose rows count, ``partial`` merged files of which only some do.
    """

    def __init__(self, filenames: Iterable[str], merged: Mapping[str, Sequence[tuple[str, int]]] | None = None) -> None:
        """``merged``: of each merged file among ``filenames``, in the order of its rows, (chunk, number of rows)."""
        self.shards: dict[str, ShardState] = {}
        self.foreign: list[str] = []
        self._merged = dict(sorted((merged or {}).items(), key=lambda item: (generation(item[0]), item[0])))
        self._holder = {chunk: name for name, chunks in self._merged.items() for chunk, _ in chunks}
        holders = set(self._holder.values())
        self.redundant = [name for name in self._merged if name not in holders]
        self.partial = [
            n for n in self._merged if n in holders and any(self._holder[c] != n for c, _ in self._merged[n])
        ]
        for name in filenames:
            if name in self._holder:
                self.redundant.append(name)
            elif not generation(name):
                self._add(name)
        for chunk in self._holder:
            self._add(chunk)

    def _add(self, name: str) -> None:
        chunk = ChunkId.parse(name)
        if chunk is None:
            self.foreign.append(name)
        else:
            state = self.shards.setdefault(chunk.shard_id, ShardState())
            state.indices.add(chunk.index)
            if chunk.last:
                state.last = chunk.index

    @staticmethod
    def read(store: Store, damaged: dict[str, OutputError] | None = None) -> Ledger:
        """The ledger of an output: one listing, and the footers of merged files.

        Raises ``OutputError`` for a merged file that cannot be read; or notes it in ``damaged``, by its name.
        """
        names = store.names(MASKS)

        def contents(name: str) -> tuple[str, list[tuple[str, int]]] | None:
            try:
                return name, [(r.filename, r.totals.records) for r in read_footer(store, name)]
            except OutputError as e:
                if damaged is None:
                    raise
                damaged[name] = e
                return None

        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(contents, [n for n in names if generation(n)])
            return Ledger(names, dict(item for item in found if item is not None))

    def without(self, chunks: Collection[str]) -> Ledger:
        """The ledger as it were if ``chunks``, given as ``filenames`` gives them, were not committed."""
        ledger = copy.copy(self)
        ledger.shards = {}
        for name in self.filenames():
            if name not in chunks:
                ledger._add(name)
        return ledger

    def __len__(self) -> int:
        return sum(len(s.indices) for s in self.shards.values())

    def committed(self, shard_id: str) -> ShardState:
        return self.shards.get(shard_id) or ShardState()

    def filenames(self) -> Iterator[str]:
        """Of every committed chunk once, the name that its own file has or had."""
        for shard_id, state in self.shards.items():
            yield from state.filenames(shard_id)

    def holder(self, chunk: str) -> str:
        """Name of the file that holds a committed chunk, which is given as ``filenames`` gives it."""
        return self._holder.get(chunk, chunk)

    def holders(self, filename: str) -> set[str]:
        """Names of the files that hold the chunks which ``filename`` has too."""
        chunks = [chunk for chunk, _ in self._merged.get(filename, [(filename, 0)])]
        return {self.holder(chunk) for chunk in chunks}

    def files(self) -> list[ResultFile]:
        """Every file with rows that count, in order of names: together they hold every committed row once."""
        own = [ResultFile(chunk) for chunk in self.filenames() if chunk not in self._holder]
        merged = [self._file(name) for name in dict.fromkeys(self._holder.values())]
        return sorted(own + merged, key=lambda file: file.name)

    def _file(self, name: str) -> ResultFile:
        ranges, start = [], 0
        for chunk, rows in self._merged[name]:
            if self._holder[chunk] == name:
                ranges.append((start, start + rows))
            start += rows
        return ResultFile(name, tuple(ranges) if name in self.partial else None)

    def receipts(self, store: Store, chunks: Iterable[str] | None = None) -> Iterator[Receipt]:
        """Receipts of committed chunks (all of them unless given), read from the footers of their files."""
        return self.receipts_by(partial(read_footers, store), self.filenames() if chunks is None else chunks)

    def receipts_by(self, read: ReadFooters, chunks: Iterable[str]) -> Iterator[Receipt]:
        """Receipts of committed chunks, as ``read`` gives them of each file."""
        merged: dict[str, set[str]] = {}
        own: list[str] = []
        for chunk in chunks:
            if chunk in self._holder:
                merged.setdefault(self._holder[chunk], set()).add(chunk)
            else:
                own.append(chunk)
        for _, found in read(own):
            yield found[0]
        for name, found in read(list(merged)):
            yield from (receipt for receipt in found if receipt.filename in merged[name])


def generation(filename: str) -> int:
    """How often the rows of a file were merged, from its name; 0 for a file that is not a merged one."""
    m = _MERGED.fullmatch(filename)
    return int(m[1]) if m else 0


def is_result(filename: str) -> bool:
    """Whether a file has a name that segbatch alone gives: of a chunk, or of merged chunks."""
    return ChunkId.parse(filename) is not None or generation(filename) > 0


def read_footer(store: Store, filename: str, folder: str = MASKS) -> list[Receipt]:
    """The receipts of all chunks in a file, in order of its rows. Raises ``OutputError`` if it is none of ours."""
    try:
        with store.open(f"{folder}/{filename}") as f:
            size = f.seek(0, os.SEEK_END)
            return receipts_of((pq.read_schema(f).metadata or {})[FOOTER_KEY], size)
    except (OSError, ValueError, KeyError, TypeError, OutputError) as e:
        raise unreadable(store, filename, e, folder) from e


def read_file(store: Store, filename: str) -> list[tuple[Receipt, pa.Table]]:
    """Every chunk of a file with its rows, columns as in ``schema``; all of it is read, and checksums are compared.

    Raises ``OutputError`` for a file that is damaged or none of ours.
    """
    return read_whole(store, filename)[1]


def read_whole(store: Store, filename: str) -> tuple[str, list[tuple[Receipt, pa.Table]]]:
    """The digest of a file's bytes, and what ``read_file`` gives."""
    try:
        data = store.read(f"{MASKS}/{filename}")
        return digest_of(data), parse_file(data)
    except (OSError, ValueError, OutputError) as e:
        raise unreadable(store, filename, e) from e


def parse_file(data: bytes) -> list[tuple[Receipt, pa.Table]]:
    """What ``read_file`` gives, of the bytes of a file. Raises ``ValueError`` if it is damaged or none of ours."""
    try:
        footer = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        if b'"timings"' not in footer[FOOTER_KEY]:  # as in files of rows version 2, which have no digest
            check_seal(data, footer[SEAL_KEY])
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        if not any(table.schema.equals(schema(has_marginal=has_marginal)) for has_marginal in (False, True)):
            raise ValueError("its columns are not those of a result file")
        receipts = receipts_of(table.schema.metadata[FOOTER_KEY], len(data))
        rows = sum(r.totals.records for r in receipts)
        if rows != table.num_rows:
            raise ValueError(f"it has {table.num_rows} rows, its footer tells of {rows}")
    except (pa.ArrowException, OSError, LookupError, TypeError, AttributeError) as e:  # whatever damage makes of it
        raise ValueError(f"{type(e).__name__}: {' '.join(str(e).split())}") from e
    table, start, found = table.replace_schema_metadata(), 0, []
    for receipt in receipts:
        found.append((receipt, table.slice(start, receipt.totals.records)))
        start += receipt.totals.records
    return found


def read_footers(store: Store, filenames: Sequence[str], folder: str = MASKS) -> Iterator[tuple[str, list[Receipt]]]:
    """(name, receipts) of many files, in order, a few read at a time."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(filenames), 1024):
            names = filenames[start : start + 1024]
            yield from zip(names, pool.map(lambda n: read_footer(store, n, folder), names), strict=True)


def unreadable(store: Store, filename: str, e: Exception, folder: str = MASKS) -> OutputError:
    """What a person needs to know of a result file that could not be read."""
    if isinstance(e, OutputError):
        return e
    where, reason = f"{store.uri}/{folder}/{filename}", " ".join(str(e).split())
    if isinstance(e, FileNotFoundError):
        return OutputError(
            f"{where}: is gone since the output was listed, as a compaction or another run does it; try again"
        )
    if is_transient(e) and not store.local:
        return OutputError(f"{where}: the store is unavailable ({type(e).__name__}: {reason})")
    return OutputError(
        f"{where}: not a readable result file ({type(e).__name__}: {reason}); "
        "`segbatch verify --repair` computes anew what was in it, as does removing it and the same `segbatch run`"
    )
