"""What is committed, told by one listing; the output is the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from segbatch.chunk import ChunkId
from segbatch.errors import OutputError
from segbatch.output.store import Store
from segbatch.output.writer import FOOTER_KEY, MASKS, Receipt
from segbatch.retry import is_transient

_READERS = 16


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


class Ledger:
    """Committed chunks by shard id. ``foreign`` are names below ``masks/`` that this package did not give."""

    def __init__(self, filenames: Iterable[str]) -> None:
        self.shards: dict[str, ShardState] = {}
        self.foreign: list[str] = []
        for name in filenames:
            chunk = ChunkId.parse(name)
            if chunk is None:
                self.foreign.append(name)
                continue
            state = self.shards.setdefault(chunk.shard_id, ShardState())
            state.indices.add(chunk.index)
            if chunk.last:
                state.last = chunk.index

    @staticmethod
    def read(store: Store) -> Ledger:
        return Ledger(store.names(MASKS))

    def __len__(self) -> int:
        return sum(len(s.indices) for s in self.shards.values())

    def committed(self, shard_id: str) -> ShardState:
        return self.shards.get(shard_id) or ShardState()

    def filenames(self) -> Iterator[str]:
        for shard_id, state in self.shards.items():
            yield from state.filenames(shard_id)


def read_receipt(store: Store, filename: str) -> Receipt:
    """The receipt in a committed file's footer. Raises ``OutputError`` for a file that is none of ours."""
    name = f"{MASKS}/{filename}"
    try:
        with store.open(name) as f:
            size = f.seek(0, os.SEEK_END)
            metadata = pq.read_schema(f).metadata or {}
        return Receipt.from_footer(metadata[FOOTER_KEY], size)
    except (OSError, ValueError, KeyError, TypeError) as e:
        reason = " ".join(str(e).split())
        if is_transient(e) and not store.local:
            raise OutputError(f"{store.uri}/{name}: the store keeps failing ({type(e).__name__}: {reason})") from e
        raise OutputError(
            f"{store.uri}/{name}: not a readable result file ({type(e).__name__}: {reason}); "
            "remove it and run the job again: its chunk is then computed anew"
        ) from e


def read_receipts(store: Store, filenames: Iterable[str]) -> Iterator[Receipt]:
    """Receipts of many files, in order, a few read at a time."""
    names = list(filenames)
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), 1024):
            yield from pool.map(lambda n: read_receipt(store, n), names[start : start + 1024])
