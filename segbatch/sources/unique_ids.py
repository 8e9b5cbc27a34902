"""Ids that are unique in a shard, without holding them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass


def id_hash(name: str) -> int:
    """64 bits that stand for an id; two ids that share them are taken for one, and the later is renamed."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class UniqueIds:
    """Gives every record of a shard an id of its own. Holds the hashes of the ids, not the ids."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, name: str) -> bool:
        """False if ``name`` was there before."""
        key = id_hash(name)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def __contains__(self, name: str) -> bool:
        return id_hash(name) in self._seen

    def unique(self, name: str, row: int) -> str:
        """``name``, or ``name#row`` if an earlier record has that id already."""
        while not self.add(name):
            name = f"{name}#{row}"
        return name


@dataclass(frozen=True)
class RenamedIds:
    """The rows of a file whose id an earlier row has, each with the id that it gets instead.

    Part of the layout of a shard: with it, rows in the middle of a file are read without the ids of those before them.
    Compressed, since the driver holds those of all shards.
    """

    packed: bytes

    @staticmethod
    def pack(renamed: Mapping[int, str]) -> RenamedIds:
        return RenamedIds(zlib.compress(json.dumps(list(renamed.items()), separators=(",", ":")).encode(), 6))

    def unpack(self) -> dict[int, str]:
        return dict(json.loads(zlib.decompress(self.packed)))

    def mapping(self) -> Callable[[str, int], str]:
        """Return what ``UniqueIds.unique`` does for all rows in order, for any row: (name, row) to the id."""
        renamed = self.unpack()
        return lambda name, row: renamed.get(row, name)
