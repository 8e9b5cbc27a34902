"""Loose image files: all of a corpus are one shard, which is divided into shards of one chunk each."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from segbatch.errors import SourceError
from segbatch.leaves import leaf_name
from segbatch.records import ALL_CHUNKS, Chunk, ChunkSelection, Record, Shard, digest
from segbatch.sources.chunking import ReadOptions, check_size, chunks_by_number, wanted_rows
from segbatch.storage.fetch import fetch
from segbatch.storage.files import Files, shown_name, shown_uri
from segbatch.storage.reachable import nearest
from segbatch.storage.retry import is_transient
from segbatch.storage.uri import join
from segbatch.storage.walk import ObjectInfo
from segbatch.text import escape_invalid_utf8, redact

MAX_LOOSE_IMAGES = 1_000_000
_HASH_BITS = 64
# Deeper than a million names need; a leaf at this depth that holds more than a chunk has several.
_MAX_DEPTH = 32


class Images:
    """Reads the images that a shard's listing names, several at once, in the order of the listing.

    Error rows: MissingObject, UnreadableObject, RecordTooLarge.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection = ALL_CHUNKS) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Images of other chunks are not read."""
        check_size(size)
        listing = Listing.of(shard)
        uris = listing.uris or [""] * len(listing.names)

        def wanted_images() -> Iterator[tuple[Record, str, int | None]]:
            for _, rows, _ in wanted_rows(len(listing.names), size, wanted):
                for row in rows:
                    image_id, uri = _id_and_uri(shard.uri, listing.names[row])
                    record = Record(escape_invalid_utf8(image_id), shown_uri(uri), row)
                    yield record, uris[row] or uri, listing.sizes[row]

        neighbors = _Neighbors(self._files, shard.uri, listing)
        records = fetch(neighbors, wanted_images(), self._options.max_record_bytes)
        return chunks_by_number(records, shard, len(listing.names), size, wanted)


class _Neighbors:
    """Reads images of a listing: one that is gone while others are there is an error row, and no outage."""

    def __init__(self, files: Files, root: str, listing: Listing) -> None:
        self._files, self._root, self._listing = files, root, listing

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        # A size of 0 when it was listed: a broken link, or an empty file.
        return self._files.read(uri, limit, size, self._is_there if size != 0 else lambda uri, error: True)

    def _is_there(self, uri: str, error: Exception) -> bool:
        if self._files.is_there(uri, error):
            return True
        uris = self._listing.uris or [_id_and_uri(self._root, name)[1] for name in self._listing.names]
        return not is_transient(error) and any(self._files.exists(other) for other in nearest(uri, uris))


def image_entry(root: str, prefix: str, folder: str, entry: ObjectInfo) -> ObjectInfo:
    """An image below ``folder`` by its name below ``root``, redacted, or by its redacted URI if ``root`` is ""."""
    uri = join(folder, entry.name)
    name = prefix + shown_name(folder, entry.name) if root else redact(uri)
    return replace(entry, name=name, uri="" if uri == redact(uri) else uri)


def image_shard(root: str, entries: Sequence[ObjectInfo]) -> Shard:
    """All loose images of a corpus as one shard, in order of their names: paths below ``root``, URIs if that is "".

    Raises ``SourceError`` above a million images, and for a name that is there twice.
    """
    if len(entries) > MAX_LOOSE_IMAGES:
        raise SourceError(
            f"{shown_uri(root)}: {len(entries):,} loose images, more than {MAX_LOOSE_IMAGES:,}: listing them anew for "
            "every run is slow. Write a manifest (CSV, JSONL or Parquet with a column uri) and give that as input"
        )
    ordered = sorted(entries, key=lambda e: e.name)
    for entry, after in itertools.pairwise(ordered):
        if entry.name == after.name:
            raise SourceError(f"{shown_uri(entry.name)}: is named by two inputs; each image may be given once")
    return _shard(root, "", ordered, listed_versions=True)


def divide(shard: Shard, chunk_size: int) -> list[Shard]:
    """The shard of ``image_shard`` as shards of at most ``chunk_size`` images, by the hashes of their names.

    A new, changed or removed name changes the shard that it falls into, or splits it, or merges it with its sibling;
    the others keep name and version. How the images came, and in which order they are listed, does not matter.
    """
    listing = Listing.of(shard)
    uris = listing.uris or [""] * len(listing.names)
    images = zip(listing.names, listing.sizes, listing.versions, uris, strict=True)
    hashed = sorted((_hash(image[0]), ObjectInfo(*image)) for image in images)
    hashes = [value for value, _ in hashed]

    def leaves(begin: int, end: int, bits: str) -> Iterator[Shard]:
        if end - begin <= chunk_size or len(bits) == _MAX_DEPTH:
            entries = sorted((entry for _, entry in hashed[begin:end]), key=lambda e: e.name)
            yield _shard(shard.uri, bits, entries)
            return
        middle = bisect_left(hashes, int(f"{bits}1", 2) << (_HASH_BITS - len(bits) - 1), begin, end)
        for bit, first, stop in (("0", begin, middle), ("1", middle, end)):
            if first < stop:
                yield from leaves(first, stop, bits + bit)

    return list(leaves(0, len(hashed), ""))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_BITS // 8).digest())


def _shard(root: str, bits: str, entries: Sequence[ObjectInfo], listed_versions: bool = False) -> Shard:
    versions = [e.version for e in entries]
    uris = [e.uri for e in entries] if any(e.uri for e in entries) else []
    listing = Listing([e.name for e in entries], [e.size for e in entries], versions if listed_versions else [], uris)
    return Shard(
        uri=root,
        name=leaf_name(bits),
        format="images",
        version=digest(*(part for e in entries for part in (e.name, e.version)), length=32),
        records=len(entries),
        size=sum(listing.sizes),
        listing=listing.packed(),
    )


@dataclass(frozen=True)
class Listing:
    """Names and sizes of a shard's images; versions too before the shard is divided.

    ``uris`` are what is read, where an image is not at its name below the root: a signature is no part of a name.
    """

    names: list[str]
    sizes: list[int]
    versions: list[str]
    uris: list[str]

    def packed(self) -> bytes:
        plain = [self.names, self.sizes, self.versions, self.uris]
        return zlib.compress(json.dumps(plain, separators=(",", ":")).encode(), 6)

    @staticmethod
    def of(shard: Shard) -> Listing:
        if shard.listing is None:
            raise SourceError(
                f"{shown_uri(shard.uri)}: a shard of loose images without its listing; plan it by open_source"
            )
        return Listing(*json.loads(zlib.decompress(shard.listing)))


def names_of(shard: Shard) -> list[tuple[str, str]]:
    """The ids and redacted URIs of a shard's images, as its records will have them."""
    named = (_id_and_uri(shard.uri, name) for name in Listing.of(shard).names)
    return [(escape_invalid_utf8(image_id), shown_uri(uri)) for image_id, uri in named]


def first_images(shard: Shard, count: int) -> list[tuple[str, int]]:
    """(URI, size in bytes) of the first images of a shard."""
    listing = Listing.of(shard)
    uris = listing.uris or [""] * len(listing.names)
    images = zip(uris[:count], listing.names[:count], listing.sizes[:count], strict=True)
    return [(uri or _id_and_uri(shard.uri, name)[1], size) for uri, name, size in images]


def _id_and_uri(root: str, name: str) -> tuple[str, str]:
    """The id of an image and its URI; without a root, ``name`` is the URI."""
    if not root:
        return name.replace("://", "/").removeprefix("/"), name
    return name, join(root, name)
