"""The committed chunks, from one listing: the output is the ledger."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from segbatch.errors import OutputError
from segbatch.output.layout import MASKS, generation
from segbatch.output.receipt import Receipt
from segbatch.output.result_file import ResultFile, read_footer, read_footers
from segbatch.records import ChunkId
from segbatch.storage.store import Store

ReadFooters = Callable[[list[str]], Iterator[tuple[str, list[Receipt]]]]

_READERS = 16


@dataclass
class ShardState:
    """The committed chunks of one version of one shard.

    Attributes:
        indices: Their indices.
        last: Index of the last chunk of the shard, if that is committed.
    """

    indices: set[int] = field(default_factory=set)
    last: int | None = None

    @property
    def is_complete(self) -> bool:
        return self.last is not None and len(self.indices) == self.last + 1

    def filenames(self, shard_id: str) -> Iterator[str]:
        for i in sorted(self.indices):
            yield ChunkId(shard_id, i, i == self.last).filename


class Ledger:
    """The committed chunks by shard id, and the files that hold them.

    A chunk is a file with its own name or, after ``segbatch compact``, some rows of a merged file, whose footer names
    its chunks. While files are replaced, a chunk can be in several: only the newest merged file counts, so that no row
    is read twice.

    Attributes:
        shards: The committed chunks of each shard, by ``Shard.id``.
        foreign: Names in ``masks/`` that segbatch does not give.
        redundant: Files whose rows are all superseded.
        partial: Merged files with some rows that are superseded.
    """

    def __init__(self, filenames: Iterable[str], merged: Mapping[str, Sequence[tuple[str, int]]] | None = None) -> None:
        """Build a ledger of file names.

        Args:
            filenames: All files of the folder.
            merged: Of each merged file, in the order of its rows, (chunk, number of rows).
        """
        self.shards: dict[str, ShardState] = {}
        self.foreign: list[str] = []
        self._merged = dict(sorted((merged or {}).items(), key=lambda item: (generation(item[0]), item[0])))
        self._file_of = {chunk: name for name, chunks in self._merged.items() for chunk, _ in chunks}
        counting = set(self._file_of.values())
        self.redundant = [name for name in self._merged if name not in counting]
        self.partial = [
            n for n in self._merged if n in counting and any(self._file_of[c] != n for c, _ in self._merged[n])
        ]
        for name in filenames:
            if name in self._file_of:
                self.redundant.append(name)
            elif not generation(name):
                self._add(name)
        for chunk in self._file_of:
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
        """List an output, and read the footers of merged files.

        Args:
            store: The root of the output.
            damaged: Receives each merged file that cannot be read, with the reason.

        Raises:
            OutputError: A merged file cannot be read, and ``damaged`` is not given.
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
            contents_of_merged = pool.map(contents, [n for n in names if generation(n)])
            return Ledger(names, dict(item for item in contents_of_merged if item is not None))

    def without(self, chunks: Collection[str]) -> Ledger:
        """Return the ledger without some chunks, which are then computed again."""
        ledger = copy.copy(self)
        ledger.shards = {}
        for name in self.filenames():
            if name not in chunks:
                ledger._add(name)
        return ledger

    def __len__(self) -> int:
        return sum(len(s.indices) for s in self.shards.values())

    def committed(self, shard_id: str) -> ShardState:
        """Return the committed chunks of a shard."""
        return self.shards.get(shard_id) or ShardState()

    def filenames(self) -> Iterator[str]:
        """Yield every committed chunk once, as the name of the separate file that it has or had."""
        for shard_id, state in self.shards.items():
            yield from state.filenames(shard_id)

    def file_of(self, chunk: str) -> str:
        """Return the name of the file that holds a committed chunk."""
        return self._file_of.get(chunk, chunk)

    def files_of(self, filename: str) -> set[str]:
        """Return the names of the files that hold the chunks which ``filename`` has too."""
        chunks = [chunk for chunk, _ in self._merged.get(filename, [(filename, 0)])]
        return {self.file_of(chunk) for chunk in chunks}

    def files(self, chunks: Collection[str] | None = None) -> list[ResultFile]:
        """Return the files that hold ``chunks`` (all unless given), in order of names."""
        wanted = set(self.filenames()) if chunks is None else set(chunks)
        own = [ResultFile(chunk) for chunk in wanted if chunk not in self._file_of]
        merged = {self._file_of[chunk] for chunk in wanted if chunk in self._file_of}
        return sorted([*own, *(self._file(name, wanted) for name in merged)], key=lambda file: file.name)

    def _file(self, name: str, wanted: Collection[str]) -> ResultFile:
        ranges, start, is_whole = [], 0, True
        for chunk, rows in self._merged[name]:
            if self._file_of[chunk] == name and chunk in wanted:
                ranges.append((start, start + rows))
            else:
                is_whole = False
            start += rows
        return ResultFile(name, None if is_whole else tuple(ranges))

    def receipts(self, store: Store, chunks: Iterable[str] | None = None) -> Iterator[Receipt]:
        """Yield the receipts of committed chunks (all unless given), from the footers of their files."""
        return self.receipts_by(partial(read_footers, store), self.filenames() if chunks is None else chunks)

    def receipts_by(self, read: ReadFooters, chunks: Iterable[str]) -> Iterator[Receipt]:
        """Yield the receipts of committed chunks, with ``read`` to read those of each file."""
        merged: dict[str, set[str]] = {}
        own: list[str] = []
        for chunk in chunks:
            if chunk in self._file_of:
                merged.setdefault(self._file_of[chunk], set()).add(chunk)
            else:
                own.append(chunk)
        for _, receipts in read(own):
            yield receipts[0]
        for name, receipts in read(list(merged)):
            yield from (receipt for receipt in receipts if receipt.filename in merged[name])
