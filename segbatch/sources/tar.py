"""Tar archives read sequentially, with every kind of damage detected."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from segbatch.contents import recognized
from segbatch.errors import RecordFailure
from segbatch.sources.compression import MAGIC_BYTES, Decompressed, compression_of
from segbatch.sources.sparse import SparseMap, old_gnu_numbers, pax_numbers, pax_size

_BLOCK = 512
_READ_BYTES = 2**20
_MAX_EXTENDED = 2**20
_MAX_NAME_LENGTH = 4096  # of a path, on Linux
_KEPT = ("path", "linkpath", "size", *(f"GNU.sparse.{name}" for name in ("name", "size", "realsize", "major", "map")))
_REPEATED = ("GNU.sparse.offset", "GNU.sparse.numbytes")
_REGULAR = (b"0", b"\0", b"7", b"S")
_LINKS = (b"1", b"2")
# Folders, lists of their contents, volume labels.
_NO_MEMBERS = (b"5", b"D", b"V")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6", b"V")
_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")


@dataclass
class Member:
    """A file in the archive.

    Attributes:
        name: Path in the archive. Nothing is written under it.
        size: Bytes.
        link: Target of a link, else None.
        special: Whether it is a device, a pipe, or of a vendor's type, and so cannot be read.
    """

    name: str
    size: int
    link: str | None
    special: bool
    _archive: TarReader = field(repr=False)
    _sparse: SparseMap | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Return the content. May be called once, before the next member is requested."""
        stored = self._archive._take(self._archive._unread)
        return stored if self._sparse is None else self._sparse.expand(stored)

    def skip(self) -> None:
        """Skip the content; raise as ``read`` does if it is truncated."""
        self._archive._pass_over()


class TarReader:
    """Iterates over the files and links of a tar stream, which may be compressed, in constant memory.

    Does not use ``tarfile``, which takes a damaged header for the end of the archive, so that records would be lost
    silently, and reads extended headers of any declared size into memory. Formats: POSIX.1-2001 ustar and pax, GNU long
    names, base-256 numbers. Reads past the end mark, because ``cat a.tar b.tar`` and a hole of zeros look the same.

    Iteration and ``Member.read`` raise ``RecordFailure`` TruncatedShard if the archive ends before its end mark,
    CorruptShard for an invalid header or damaged compressed data.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.compression = compression = compression_of(stream.read(MAGIC_BYTES))
        self._total = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        self._plain = stream if compression is None else None
        self._stream = Decompressed(compression, stream) if compression is not None else stream
        self._at = 0
        self._unread = 0

    def __iter__(self) -> Iterator[Member]:
        """May be called once: the stream is not read again."""
        long_name: str | None = None
        pax: dict[str, str] = {}
        always: dict[str, str] = {}
        while (header := self._header()) is not None:
            kind, size = header[156:157], _number(header[124:136], self._at)
            if kind in (b"x", b"X", b"g"):
                (always if kind == b"g" else pax).update(_pax(self._extended(size), self._at))
                continue
            if kind == b"L":
                long_name = _text(self._extended(size).split(b"\0", 1)[0])
                continue
            fields, name = {**always, **pax}, long_name
            if kind == b"K":
                self._begin(size)
                continue
            long_name, pax = None, {}
            if fields.get("size", "").isdecimal():
                size = int(fields["size"])
            name = fields.get("GNU.sparse.name") or fields.get("path") or name or _name(header)
            link = (fields.get("linkpath") or _text(header[157:257].split(b"\0", 1)[0])) if kind in _LINKS else None
            if len(name) > _MAX_NAME_LENGTH or len(link or "") > _MAX_NAME_LENGTH:
                raise RecordFailure(
                    "read", "CorruptShard", f"a name of more than {_MAX_NAME_LENGTH} characters at byte {self._at}"
                )
            self._begin(0 if kind in _WITHOUT_DATA else size)
            if kind in _LINKS:
                yield Member(name, 0, link, False, self)
            elif kind not in _REGULAR + _NO_MEMBERS:
                yield Member(name, 0, None, True, self)
            elif kind in _REGULAR and not name.endswith("/"):
                sparse = self._sparse_map(kind, header, fields)
                yield Member(name, size if sparse is None else sparse.size, None, False, self, sparse)

    def _pass_over(self) -> None:
        self._skip(self._unread)
        self._unread = 0

    def _header(self) -> bytes | None:
        """Return the next header block, None if only zeros follow."""
        self._pass_over()
        self._skip(-self._at % _BLOCK)
        self._unread = 0
        block, marked = self._read(_BLOCK), False
        while block and not any(block):
            block, marked = self._read(_BLOCK), True
        begin = self._at - len(block)
        if marked and not block:
            return None
        if begin == 0 and (other := recognized(block, {"a tar archive"})):
            raise RecordFailure("read", "CorruptShard", f"not a tar, but {other}")
        if len(block) < _BLOCK:
            where = f"within the header at byte {begin}" if block else f"at byte {begin}, without an end mark"
            raise RecordFailure("read", "TruncatedShard", f"the tar breaks off {where}")
        stored = _number(block[148:156], begin)
        summed = block[:148] + b" " * 8 + block[156:]
        # Old versions of tar sum signed bytes. Adding these up takes as long as all other reading: only where needed.
        if stored != sum(summed) and stored != sum(summed) - 256 * sum(b > 127 for b in summed):
            raise RecordFailure(
                "read", "CorruptShard", f"no tar header at byte {begin}, where one must be: {block[:24]!r}"
            )
        return block

    def _begin(self, size: int) -> None:
        self._unread = size

    def _extended(self, size: int) -> bytes:
        if size > _MAX_EXTENDED:
            raise RecordFailure("read", "CorruptShard", f"an extended header of {size} bytes at byte {self._at}")
        self._begin(size)
        return self._take(size)

    def _sparse_map(self, kind: bytes, header: bytes, fields: dict[str, str]) -> SparseMap | None:
        """Return the map of a sparse member, which precedes its data."""
        where = f"near byte {self._at}"
        if kind == b"S":
            stored = self._unread  # does not count the blocks of the map, unlike that of pax
            size, numbers = old_gnu_numbers(header, self._map_block, lambda raw: _number(raw, self._at), where)
            self._begin(stored)
        elif (real := pax_size(fields)) is not None:
            size, numbers = real, pax_numbers(fields, lambda: self._take(_BLOCK), where)
        else:
            return None
        return SparseMap.of(size, numbers, self._unread, where)

    def _map_block(self) -> bytes:
        self._begin(_BLOCK)
        return self._take(_BLOCK)

    def _take(self, size: int) -> bytes:
        begin = self._at
        parts, left = [], size
        while left:
            part = self._read(min(left, _READ_BYTES))  # a declared size may be larger than the archive
            if not part:
                raise RecordFailure(
                    "read", "TruncatedShard", f"the tar breaks off after {size - left} of {size} bytes at byte {begin}"
                )
            parts.append(part)
            left -= len(part)
        self._unread -= size
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        if not size:
            return
        if self._plain is not None:
            if self._at + size > self._total:
                raise RecordFailure(
                    "read", "TruncatedShard", f"the tar ends at byte {self._total}, {self._at + size} must be there"
                )
            self._plain.seek(size, os.SEEK_CUR)
            self._at += size
            return
        self._unread += size  # _take counts it down again
        while size:
            part = min(size, _READ_BYTES)
            self._take(part)
            size -= part

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data


def open_tar(stream: BinaryIO) -> TarReader:
    """Return a reader of a seekable stream. Its first bytes tell whether it is compressed."""
    return TarReader(stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream))  # type: ignore[type-var]


def _number(raw: bytes, at: int) -> int:
    if raw[0] & 0x80:
        value = int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
    else:
        digits = raw.split(b"\0", 1)[0].strip()
        if not re.fullmatch(rb"[0-7]*", digits):
            raise RecordFailure("read", "CorruptShard", f"no tar header near byte {at}: {raw!r} is not a number")
        value = int(digits or b"0", 8)
    if value >= 2**63:
        raise RecordFailure("read", "CorruptShard", f"no tar header near byte {at}: a size of {value} bytes")
    return value


def _pax(data: bytes, at: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    sparse_map: list[str] = []
    begin = 0
    while begin < len(data) and data[begin]:
        record = _PAX_RECORD.match(data, begin)
        end = begin + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(data):
            raise RecordFailure("read", "CorruptShard", f"a pax header near byte {at} that cannot be read")
        key, value = _text(record[2]), _text(data[record.end() : end - 1])
        if key in _REPEATED:  # an offset and a length for each part, in version 0.0
            sparse_map.append(value)
        elif key in _KEPT:
            fields[key] = value
        begin = end
    return {**fields, "GNU.sparse.map": ",".join(sparse_map)} if sparse_map else fields


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return _text(name)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
