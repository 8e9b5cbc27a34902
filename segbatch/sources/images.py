"""Loose image files: one shard per corpus while planning, then divided into shards of one chunk each."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from segbatch.contents import LFS_POINTER, recognized
from segbatch.errors import SourceError
from segbatch.leaves import leaf_name
from segbatch.records import Chunk, ChunkSelection, Record, Shard, digest
from segbatch.sources.chunking import chunks_by_number, wanted_rows
from segbatch.sources.first_bytes import first_bytes, others_suffix
from segbatch.sources.formats import InputFile, Listing, PlannedShards, ReadOptions
from segbatch.sources.slices import even_starts
from segbatch.storage.base import ObjectInfo
from segbatch.storage.failures import is_transient
from segbatch.storage.fetch import fetch
from segbatch.storage.files import Files
from segbatch.storage.uri import join, nearest
from segbatch.text import escape_invalid_utf8, redact

IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib"),
    *(".gif", ".avif", ".avifs"),
    # Not all of these can be decoded: they are error rows, so that no image is passed over silently.
    *(".heic", ".heif", ".hif", ".heics", ".heifs", ".jxl", ".jp2"),
)
MAX_LOOSE_IMAGES = 1_000_000
_CHECKED = 3  # images whose first bytes are looked at
_MAX_POINTER_BYTES = 1024  # a Git LFS pointer has some 130
_HASH_BITS = 64
# Deeper than a million names need. A leaf at this depth may have several chunks.
_MAX_DEPTH = 32


class Images:
    """Image files, several of which are read concurrently.

    All of a corpus are planned as one shard, in order of names. Error rows: MissingObject, UnreadableObject,
    RecordTooLarge.
    """

    name = "images"
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS
    options: tuple[str, ...] = ()

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        """See ``Format.shards``.

        Raises:
            SourceError: There are more than a million images, or two of one name.
        """
        return PlannedShards([image_shard(listing.root, [_entry(listing.root, file) for file in listing.files()])])

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        """See ``Format.problems``: the first images are Git LFS pointers. A few may be a server's error pages."""
        images = [image for shard in shards[:_CHECKED] for image in _first_images(shard)][:_CHECKED]
        if any(size > _MAX_POINTER_BYTES for _, size in images):
            return
        kinds = [recognized(first_bytes(options.files, uri)) for uri, _ in images]
        if kinds and all(kind.startswith(LFS_POINTER) for kind in kinds):
            total = sum(shard.records or 0 for shard in shards)
            yield f"{redact(images[0][0])}: not an image, but {kinds[0]}{others_suffix(len(images), total)}"

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        """Return the images as shards of at most ``size`` images, by a binary trie over the hashes of their names.

        A new, changed or removed image changes one shard, splits it, or merges it with its sibling. All other shards
        keep name and version, in whatever order the images are listed.
        """
        hashed = sorted((_hash(image.name), image) for image in ImageList.of(shard).images())
        hashes = [value for value, _ in hashed]

        def leaves(begin: int, end: int, bits: str) -> Iterator[Shard]:
            if end - begin <= size or len(bits) == _MAX_DEPTH:
                yield _shard(shard.uri, bits, sorted((image for _, image in hashed[begin:end]), key=lambda i: i.name))
                return
            middle = bisect_left(hashes, int(f"{bits}1", 2) << (_HASH_BITS - len(bits) - 1), begin, end)
            for bit, first, stop in (("0", begin, middle), ("1", middle, end)):
                if first < stop:
                    yield from leaves(first, stop, bits + bit)

        return list(leaves(0, len(hashed), ""))

    def starts(self, shard: Shard, size: int) -> list[int]:
        """See ``Format.starts``."""
        return even_starts(shard.records or 0, size)

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        """See ``Format.index``."""
        return shard

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        """See ``Format.chunks``. Images of other chunks are not read."""
        images = ImageList.of(shard).images()

        def wanted_images() -> Iterator[tuple[Record, str, int | None]]:
            for _, rows, _ in wanted_rows(len(images), size, wanted):
                for row in rows:
                    image_id, uri = _id_and_uri(shard.uri, images[row].name)
                    record = Record(escape_invalid_utf8(image_id), escape_invalid_utf8(redact(uri)), row)
                    yield record, images[row].uri or uri, images[row].size

        neighbors = _Neighbors(options.files, shard.uri, images)
        records = fetch(neighbors, wanted_images(), options.max_record_bytes)
        return chunks_by_number(records, shard, len(images), size, wanted)


class _Neighbors:
    """Reads images of a shard. One that is missing while others exist is an error row, not an outage."""

    def __init__(self, files: Files, root: str, images: Sequence[ObjectInfo]) -> None:
        self._files, self._root, self._images = files, root, images

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        # Size 0 in the listing: a broken link, or an empty file. Its failure is its own.
        return self._files.read(uri, limit, size, self._is_reachable if size != 0 else lambda uri, error: True)

    def _is_reachable(self, uri: str, error: Exception) -> bool:
        if self._files.is_reachable(uri, error):
            return True
        uris = [image.uri or _id_and_uri(self._root, image.name)[1] for image in self._images]
        return not is_transient(error) and any(self._files.has(other) for other in nearest(uri, uris))


def _entry(root: str, file: InputFile) -> ObjectInfo:
    """Return an image by its redacted path below ``root``, or by its redacted URI if ``root`` is ""."""
    shown = redact(file.uri)
    return ObjectInfo(file.name if root else shown, file.size, file.version, "" if file.uri == shown else file.uri)


def image_shard(root: str, entries: Sequence[ObjectInfo]) -> Shard:
    """Return all images of a corpus as one shard, in order of names. Raises ``SourceError``, see ``Images.shards``."""
    if len(entries) > MAX_LOOSE_IMAGES:
        raise SourceError(
            f"{redact(root)}: {len(entries):,} loose images, more than {MAX_LOOSE_IMAGES:,}: listing them again in "
            "every run is slow. Write a manifest (CSV, JSONL or Parquet with a column uri) and give that as input"
        )
    ordered = sorted(entries, key=lambda e: e.name)
    for entry, after in itertools.pairwise(ordered):
        if entry.name == after.name:
            raise SourceError(f"{redact(entry.name)}: is named by two inputs; give each image once")
    return _shard(root, "", ordered, keep_versions=True)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_BITS // 8).digest())


def _shard(root: str, bits: str, images: Sequence[ObjectInfo], keep_versions: bool = False) -> Shard:
    return Shard(
        uri=root,
        name=leaf_name(bits),
        format=Images.name,
        version=digest(*(part for image in images for part in (image.name, image.version)), length=32),
        records=len(images),
        size=sum(image.size for image in images),
        layout=ImageList.pack(images, keep_versions),
    )


@dataclass(frozen=True)
class ImageList:
    """Layout of a shard of images: names and sizes, and versions before the shard is divided.

    Compressed, because the driver holds the layouts of all shards. An image has a URI if its name is not the path to
    open, because signatures are not part of a name.
    """

    packed: bytes

    @staticmethod
    def pack(images: Sequence[ObjectInfo], keep_versions: bool) -> ImageList:
        versions = [image.version for image in images] if keep_versions else []
        uris = [image.uri for image in images] if any(image.uri for image in images) else []
        plain = [[image.name for image in images], [image.size for image in images], versions, uris]
        return ImageList(zlib.compress(json.dumps(plain, separators=(",", ":")).encode(), 6))

    @staticmethod
    def of(shard: Shard) -> ImageList:
        return cast(ImageList, shard.layout)

    def images(self) -> list[ObjectInfo]:
        names, sizes, versions, uris = json.loads(zlib.decompress(self.packed))
        columns = names, sizes, versions or itertools.repeat(""), uris or itertools.repeat("")
        return [ObjectInfo(*image) for image in zip(*columns, strict=False)]


def images_by_id(shard: Shard) -> dict[str, ObjectInfo]:
    """Return the images of a shard before it is divided, by their ids."""
    images = ImageList.of(shard).images()
    return {escape_invalid_utf8(_id_and_uri(shard.uri, image.name)[0]): image for image in images}


def leaf_of(shard: Shard, bits: str, images: Sequence[ObjectInfo]) -> Shard:
    """Return the leaf with these bits that had exactly these images of a shard before it was divided."""
    return _shard(shard.uri, bits, sorted(images, key=lambda image: image.name))


def bits_of_image(image: ObjectInfo) -> list[str]:
    """Return the bits of the leaves that an image may be in, the largest leaf first."""
    bits = f"{_hash(image.name):0{_HASH_BITS}b}"
    return [bits[:depth] for depth in range(_MAX_DEPTH + 1)]


def image_names(shard: Shard) -> list[tuple[str, str]]:
    """Return (id, redacted URI) of the images of a shard, as in its records."""
    named = (_id_and_uri(shard.uri, image.name) for image in ImageList.of(shard).images())
    return [(escape_invalid_utf8(image_id), escape_invalid_utf8(redact(uri))) for image_id, uri in named]


def _first_images(shard: Shard) -> list[tuple[str, int]]:
    """Return (URI, bytes) of the first images of a shard."""
    images = ImageList.of(shard).images()[:_CHECKED]
    return [(image.uri or _id_and_uri(shard.uri, image.name)[1], image.size) for image in images]


def _id_and_uri(root: str, name: str) -> tuple[str, str]:
    """Return the id of an image and its URI; without a root, ``name`` is the URI."""
    if not root:
        return name.replace("://", "/").removeprefix("/"), name
    return name, join(root, name)
