"""What the first bytes of the first shards and images show: files of another kind than their names say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segbatch.contents import FIRST_BYTES, LFS_POINTER, recognized
from segbatch.records import Shard
from segbatch.sources.compression import MAGIC_BYTES, compression_of
from segbatch.sources.images import first_images
from segbatch.storage.files import Files, shown_uri
from segbatch.text import without_query

_LOOKED_AT = 3
_SMALL_IMAGE = 1024  # a pointer has some 130 bytes
_KINDS = {
    "webdataset": ("a tar", {"a tar archive", "gzip data", "bzip2 data", "xz data", "zstd data"}),
    "parquet": ("Parquet", {"a Parquet file"}),
}


_SUFFIXES = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}


def mistaken_files(files: Files, shards: Sequence[Shard], format: str | None) -> Iterator[str]:
    """What is wrong with all of a format's first few shards, or first images, in one line for each format.

    A single file of another kind among right ones is an error row. ``format`` is the option: where it is given, a tar
    may be compressed whatever its name is.
    """
    for kind, (expected, allowed) in _KINDS.items():
        group = [shard for shard in shards if shard.format == kind]
        found = [_of_shard(files, shard, allowed, format is None) for shard in group[:_LOOKED_AT]]
        if found and all(found):
            yield f"{shown_uri(group[0].uri)}: not {expected}, but {found[0]}{_others(len(group))}"
    yield from _pointers(files, shards)


def _of_shard(files: Files, shard: Shard, allowed: set[str], by_name: bool) -> str:
    head = first_bytes(files, shard.uri)
    name = without_query(shard.uri).lower()
    compression = compression_of(head[:MAGIC_BYTES])
    if by_name and shard.format == "webdataset" and name.endswith(".tar") and compression is not None:
        suffix = _SUFFIXES[compression]
        return f"{compression} data: decompress it, name it .tar{suffix}, or set the option format to webdataset"
    return recognized(head, allowed)


def _pointers(files: Files, shards: Sequence[Shard]) -> Iterator[str]:
    """Images that are Git LFS pointers; pages of servers among them may be few, and are error rows."""
    loose = [shard for shard in shards if shard.format == "images"]
    images = [image for shard in loose[:_LOOKED_AT] for image in first_images(shard, _LOOKED_AT)][:_LOOKED_AT]
    if not images or any(size > _SMALL_IMAGE for _, size in images):
        return
    found = [recognized(first_bytes(files, uri)) for uri, _ in images]
    if all(said.startswith(LFS_POINTER) for said in found):
        count = sum(shard.records or 0 for shard in loose)
        yield f"{shown_uri(images[0][0])}: not an image, but {found[0]}{_others(count)}"


def _others(count: int) -> str:
    return f"; so are the others of the first {min(count, _LOOKED_AT)}, of {count:,}" if count > 1 else ""


def first_bytes(files: Files, uri: str) -> bytes:
    """As many as tell kinds apart; none if the file cannot be read, which whoever reads it meets, too."""
    try:
        with files.beginning(uri, FIRST_BYTES) as stream:
            return stream.read(FIRST_BYTES)
    except Exception:  # clients of stores have exceptions of their own
        return b""
