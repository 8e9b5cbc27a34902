"""Shards, chunks and records: the types of all stages, and the identities that retry and resume use."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segbatch.skipped import Skipped
from segbatch.text import redact_text

if TYPE_CHECKING:
    import numpy as np


def digest(*parts: str, length: int = 8) -> str:
    """Return a hex digest of ``parts``. Parts are length-prefixed, so that no two lists give the same bytes."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "little") + data)
    return h.hexdigest()[:length]


def sample_key(image_id: str) -> str:
    """Return the key by which samples for reports are drawn: the images with the smallest keys, 16 hex digits each."""
    return digest("preview", image_id, length=16)


# 64 bits of name and of version; rows version 2 and earlier had 32 and 24, in which shards could collide.
_FILENAME = re.compile(r"(.+\.(?:[0-9a-f]{16}\.[0-9a-f]{16}|[0-9a-f]{8}\.[0-9a-f]{6}))-(\d{5,})(-end)?\.parquet")


@dataclass(frozen=True)
class Shard:
    """Unit of input: a tar, a Parquet file, a manifest, or a group of loose images.

    Attributes:
        uri: What is opened. Of loose images the corpus root.
        name: Path below the corpus root, unique in the corpus. Image ids start with it.
        format: Name of the ``Format`` that planned the shard and reads it.
        version: Changes when the content does: size and ETag, or size and modification time.
        records: Number of records, None if the format learns it only by reading the shard.
        size: Bytes.
        layout: What the format found out while planning: names of loose images, offsets in a manifest, columns of a
            table. Picklable. Only the format reads it.
    """

    uri: str
    name: str
    format: str
    version: str
    records: int | None = None
    size: int = 0
    layout: object | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Name prefix of the committed files of this shard, in all its versions."""
        slug = re.sub(r"[^A-Za-z0-9_]+", "-", self.name).strip("-")[-48:].strip("-") or "shard"
        return f"{slug}.{digest(self.name, length=16)}"

    @property
    def id(self) -> str:
        """Key and version, so that files of changed content have other names."""
        return f"{self.key}.{digest(self.version, length=16)}"


@dataclass(frozen=True)
class Corpus:
    """The shards of a job's inputs.

    Attributes:
        root: Folder that names are relative to, "" for inputs in several kinds of stores.
        skipped: What the listings of the inputs hold besides shards.
        image_column: Column of the images in all tables, if their values and not only its name identified it.
        notes: Which columns were chosen, as (subject, sentence), for a plan.
        warnings: What is probably not intended.
    """

    root: str
    shards: list[Shard]
    skipped: Skipped = field(default_factory=Skipped)
    image_column: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChunkId:
    """Identity of one chunk: records ``index * size`` up to ``(index + 1) * size`` of a shard.

    ``last`` marks the chunk that ends its shard. It is part of the file name, so that a listing alone shows which
    shards are complete.
    """

    shard_id: str
    index: int
    last: bool

    @property
    def filename(self) -> str:
        return f"{self.shard_id}-{self.index:05d}{'-end' if self.last else ''}.parquet"

    @staticmethod
    def parse(filename: str) -> ChunkId | None:
        """Return the identity in a file name, or None for a name that segbatch does not write."""
        m = _FILENAME.fullmatch(filename)
        return ChunkId(m[1], int(m[2]), m[3] is not None) if m else None


@dataclass(frozen=True)
class ChunkSelection:
    """Predicate over the chunk indices of one shard: ``index in selection``.

    It is not a list, because the number of chunks of a tar is unknown until its end.

    Attributes:
        first: First index.
        stop: Index after the last one, None for the end of the shard.
        done: Indices between them that are not selected.
    """

    first: int = 0
    stop: int | None = None
    done: frozenset[int] = frozenset()

    def __contains__(self, index: int) -> bool:
        return self.first <= index and (self.stop is None or index < self.stop) and index not in self.done


ALL_CHUNKS, NO_CHUNKS = ChunkSelection(), ChunkSelection(stop=0)


@dataclass(frozen=True)
class ShardSlice:
    """One read task: the wanted chunks of a shard."""

    shard: Shard
    wanted: ChunkSelection

    @property
    def is_one_chunk(self) -> bool:
        """Whether the slice has at most one chunk."""
        return self.wanted.stop == self.wanted.first + 1


@dataclass(frozen=True)
class RecordError:
    """Why a record has no mask.

    Attributes:
        stage: ``read``, ``decode``, ``segment`` or ``refine``.
        type: Stable word for grouping, such as ``TruncatedImage``.
        message: One line.
    """

    stage: str
    type: str
    message: str


@dataclass(frozen=True)
class Scores:
    """Class scores of one image at the output stride of the network.

    The probabilities are normalized over all classes, including those left out because they are not the arg-max
    anywhere. The center of cell (i, j) is at pixel ``((i + 0.5) * stride - 0.5, (j + 0.5) * stride - 0.5)``.

    Attributes:
        values: Log-probabilities, float16 (K, h, w), where h and w are height and width over stride, rounded up.
        class_ids: Class of each channel, int16 (K,).
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        stride: Pixels per cell.
    """

    values: np.ndarray
    class_ids: np.ndarray
    height: int
    width: int
    stride: int


@dataclass(frozen=True)
class ClassCount:
    """One class in one image: pixels, fraction of all pixels, mean confidence of these pixels (a float32 value)."""

    class_id: int
    pixels: int
    fraction: float
    confidence: float


@dataclass(frozen=True)
class Preview:
    """What reports show of an image besides its row.

    Attributes:
        image_id: Of the row.
        photograph: The image as WebP, its longer side at most 480 pixels.
        network: The network's own mask, before the refiner: palette PNG of the photograph's size.
    """

    image_id: str
    photograph: bytes
    network: bytes


@dataclass(frozen=True)
class Record:
    """One input record at any stage: with encoded bytes, then scores, then a mask; or with an error.

    Attributes:
        image_id: Unique in the corpus.
        source: Redacted URI of the image, or of its shard.
        index: Position in the shard.
        data: Encoded image.
        mask: Palette PNG.
        classes: Classes of the mask, most pixels first.
        confidence: Mean over all pixels of the network's probability of the predicted class.
        marginal: The same of the refiner's probability.
        preview: Of the records that are sampled for reports.
    """

    image_id: str
    source: str
    index: int
    data: bytes | None = None
    scores: Scores | None = None
    height: int | None = None
    width: int | None = None
    error: RecordError | None = None
    mask: bytes | None = None
    classes: tuple[ClassCount, ...] = ()
    confidence: float | None = None
    marginal: float | None = None
    preview: Preview | None = None

    def failed(self, stage: str, kind: str, message: str) -> Record:
        """Return this record as an error row, with its identity and, if known, its size."""
        error = RecordError(stage, kind, redact_text(message)[:2000])
        return Record(self.image_id, self.source, self.index, height=self.height, width=self.width, error=error)


@dataclass
class Chunk:
    """Fixed slice of one shard: the unit that is read, batched, refined, committed, retried and resumed.

    Every stage takes a chunk and returns it with the results of that stage in its records.

    Attributes:
        timings: Seconds of each stage so far.
        skipped: What the shard holds between these records and is not a record.
    """

    id: ChunkId
    records: list[Record]
    timings: dict[str, float] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)
