"""Unique ids of the records of a shard, by their hashes."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np


def id_hash(name: str) -> int:
    """Return a 64-bit hash of an id. Two ids with the same hash count as equal, and the later one is renamed."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def id_hashes(names: Iterable[str]) -> np.ndarray:
    """Return ``id_hash`` of each id, uint64 (N,)."""
    return np.fromiter(map(id_hash, names), np.uint64)


class UniqueIds:
    """Makes ids unique. Holds 8-byte hashes, not the ids."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, name: str) -> bool:
        """Add an id; return False if it was added before."""
        key = id_hash(name)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def __contains__(self, name: str) -> bool:
        return id_hash(name) in self._seen

    def unique(self, name: str, row: int) -> str:
        """Return ``name``, or ``name#row`` if an earlier record has that id."""
        while not self.add(name):
            name = f"{name}#{row}"
        return name


@dataclass(frozen=True)
class RenamedIds:
    """The rows of a file whose id an earlier row has, with the id that each gets instead.

    Part of a layout: with it, a slice of a file is read without the ids of the rows before it. Compressed, because the
    driver holds the layouts of all shards.
    """

    packed: bytes

    @staticmethod
    def pack(renamed: Mapping[int, str]) -> RenamedIds:
        return RenamedIds(zlib.compress(json.dumps(list(renamed.items()), separators=(",", ":")).encode(), 6))

    def unpack(self) -> dict[int, str]:
        return dict(json.loads(zlib.decompress(self.packed)))

    def mapping(self) -> Callable[[str, int], str]:
        """Return a function from (name, row) to the id that ``UniqueIds.unique`` returns after all earlier rows."""
        renamed = self.unpack()
        return lambda name, row: renamed.get(row, name)
