"""Names of the shards that loose images are divided into, and which shards may hold the same records.

Loose images are leaves of a binary trie over the hashes of their names: the leaf ``0110`` has all images whose hash
begins with these bits. A leaf that outgrows a chunk is split by the next bit; siblings that fit into one are merged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from segbatch.records import digest

# No object has this name: a `*` in a name would be taken for a pattern.
_NAME = "images*"
_SLUG = re.compile(r"images(?:-([01]+))?")


def leaf_name(bits: str) -> str:
    """Return the ``Shard.name`` of the loose images whose hashes begin with ``bits``."""
    return f"{_NAME}{bits}"


def bits_of(key: str) -> str | None:
    """Return the bits of the leaf with this ``Shard.key``; None for any other shard."""
    slug, _, name_digest = key.rpartition(".")
    match = _SLUG.fullmatch(slug)
    bits = (match[1] or "") if match else ""
    return bits if match and digest(leaf_name(bits), length=16) == name_digest else None


class Overlaps:
    """A set of shards: ``key in Overlaps(keys)`` is whether the shard may hold records of a shard of ``keys``.

    It may if the keys are equal (two versions of a shard), or if both are leaves and one is below the other (a leaf
    before and after a split or merge).
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = set(keys)
        self._leaves = {bits for bits in map(bits_of, self._keys) if bits is not None}
        self._above = {bits[:n] for bits in self._leaves for n in range(len(bits))}

    def __contains__(self, key: str) -> bool:
        bits = bits_of(key)
        if bits is None:
            return key in self._keys
        return bits in self._above or any(bits[:n] in self._leaves for n in range(len(bits) + 1))
