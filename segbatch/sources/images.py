"""Loose image files under a prefix, cut into shards by their names."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Sequence

from segbatch.chunk import Chunk, Record, Shard, digest
from segbatch.errors import SourceError
from segbatch.sources.chunking import ReadOptions, check_size, chunks_by_number, clean, wanted_rows
from segbatch.sources.fetch import fetch
from segbatch.sources.io import Files, shown_uri
from segbatch.sources.listing import Entry, join

MAX_LOOSE_IMAGES = 1_000_000
# Shards of 2,048 images on average.
_MIN, _MAX, _ONE_IN = 512, 8192, 1536


class Images:
    """Reads the images that a shard's listing names, several at once, in the order of the listing.

    Error rows: MissingObject, UnreadableObject, RecordTooLarge.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, skip: Collection[int] = ()) -> Iterator[Chunk]:
        """See ``interfaces.Source``. Images of chunks in ``skip`` are not read."""
        check_size(size)
        prefix, names, sizes = _unpack(shard)

        def wanted() -> Iterator[tuple[Record, str, int | None]]:
            for _, rows, _ in wanted_rows(len(names), size, skip):
                for row in rows:
                    uri = join(shard.uri, names[row])
                    yield Record(clean(prefix + names[row]), shown_uri(uri), row), uri, sizes[row]

        records = fetch(self._files, wanted(), self._options.max_record_bytes)
        return chunks_by_number(records, shard, len(names), size, skip)


def image_shards(root: str, entries: Sequence[Entry], prefix: str = "") -> list[Shard]:
    """Shards of images below the URI ``root``; ``prefix`` is what the ids have before the path below it.

    A shard ends after an image whose name's hash says so, if it holds 512 by then, and at 8,192: where it ends
    depends on the names within it, so that a new image changes the shard it falls into and no other. Raises
    ``SourceError`` above a million images.
    """
    if len(entries) > MAX_LOOSE_IMAGES:
        raise SourceError(
            f"{shown_uri(root)}: {len(entries):,} loose images, more than {MAX_LOOSE_IMAGES:,}: listing them anew for "
            "every run is slow. Write a manifest (CSV, JSONL or Parquet with a column uri) and give that as input"
        )
    ordered = sorted(entries, key=lambda e: e.name)
    shards, begin = [], 0
    for end, entry in enumerate(ordered, 1):
        length = end - begin
        if end == len(ordered) or length == _MAX or (length >= _MIN and _ends_here(entry.name)):
            shards.append(_shard(root, prefix, ordered[begin:end]))
            begin = end
    return shards


def _ends_here(name: str) -> bool:
    value = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(value, "little") % _ONE_IN == 0


def _shard(root: str, prefix: str, entries: Sequence[Entry]) -> Shard:
    names, sizes = [e.name for e in entries], [e.size for e in entries]
    listing = json.dumps([prefix, names, sizes], separators=(",", ":")).encode()
    versions = (part for e in entries for part in (e.name, e.version))
    return Shard(
        uri=root,
        name=clean(prefix + names[0]),
        format="images",
        version=digest(*versions, length=32),
        records=len(entries),
        size=sum(sizes),
        listing=zlib.compress(listing, 6),
    )


def _unpack(shard: Shard) -> tuple[str, list[str], list[int]]:
    if shard.listing is None:
        raise SourceError(
            f"{shown_uri(shard.uri)}: a shard of loose images without its listing; plan it by open_source"
        )
    prefix, names, sizes = json.loads(zlib.decompress(shard.listing))
    return prefix, names, sizes
