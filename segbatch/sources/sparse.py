"""Sparse members of GNU tar: the stored parts of a file whose other bytes are zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from segbatch.errors import RecordFailure

# GNU tar itself writes one entry per hole; hostile maps have no end.
_MAX_PARTS = 65_536
_BLOCK = 512


@dataclass(frozen=True)
class SparseMap:
    """(offset, length) of the stored parts of a file of ``size`` bytes, in order, without overlaps."""

    size: int
    parts: tuple[tuple[int, int], ...]

    @staticmethod
    def of(size: int, numbers: Iterable[int], stored: int, where: str) -> SparseMap:
        """Return a map from alternating offsets and lengths. Raises ``RecordFailure`` if it is invalid."""
        flat = list(numbers)
        parts = tuple(zip(flat[::2], flat[1::2], strict=False))
        ends = [0, *(offset + length for offset, length in parts)]
        in_order = all(offset >= end for (offset, _), end in zip(parts, ends, strict=False))
        if len(flat) % 2 or not in_order or ends[-1] > size or sum(length for _, length in parts) > stored:
            raise damaged(where)
        return SparseMap(size, parts)

    def expand(self, stored: bytes) -> bytes:
        """Return the file from its stored parts, concatenated."""
        whole, at = bytearray(self.size), 0
        for offset, length in self.parts:
            whole[offset : offset + length] = stored[at : at + length]
            at += length
        return bytes(whole)


def damaged(where: str) -> RecordFailure:
    return RecordFailure("read", "CorruptShard", f"a sparse file whose map cannot be read {where}")


def old_gnu_numbers(
    header: bytes, block: Callable[[], bytes], number: Callable[[bytes], int], where: str
) -> tuple[int, list[int]]:
    """Return (size, alternating offsets and lengths) of a member of type S, from its header and more blocks."""
    size, fields, is_extended = number(header[483:495]), header[386:482], header[482]
    numbers = _old_gnu_entries(fields, number)
    while is_extended:
        extension = block()
        fields, is_extended = extension[:504], extension[504]
        numbers += _old_gnu_entries(fields, number)
        if len(numbers) > 2 * _MAX_PARTS:
            raise damaged(where)
    return size, numbers


def _old_gnu_entries(fields: bytes, number: Callable[[bytes], int]) -> list[int]:
    entries = [fields[i : i + 24] for i in range(0, len(fields), 24)]
    used = [e for e in entries if e[12]]  # the length field of an unused entry is empty
    return [number(field) for e in used for field in (e[:12], e[12:])]


def pax_size(fields: Mapping[str, str]) -> int | None:
    """Return the size of the file that pax ``fields`` of any of GNU's three versions describe as sparse, or None."""
    text = fields.get("GNU.sparse.realsize") or fields.get("GNU.sparse.size") or ""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def pax_numbers(fields: Mapping[str, str], block: Callable[[], bytes], where: str) -> list[int]:
    """Return alternating offsets and lengths, from the fields (versions 0.0, 0.1) or the blocks before the data."""
    if "GNU.sparse.major" not in fields:
        texts = [text for text in fields.get("GNU.sparse.map", "").split(",") if text]
    else:
        texts, unparsed, wanted = [], b"", 1  # the first number tells how many parts there are
        while len(texts) < wanted:
            unparsed += block()
            *lines, unparsed = unparsed.split(b"\n")
            texts += [line.decode("ascii", "replace") for line in lines]
            if texts and texts[0].isdecimal() and len(texts[0]) < 10:
                wanted = 1 + 2 * int(texts[0])
            if wanted > 2 * _MAX_PARTS or (len(unparsed) >= _BLOCK and not lines):
                raise damaged(where)
        texts = texts[1:wanted]
    if not all(text.isdecimal() and len(text) < 20 for text in texts):
        raise damaged(where)
    return [int(text) for text in texts]
