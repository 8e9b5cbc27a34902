"""Shards, chunks and records: the identities that every stage, retry and resume agrees on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np

from segbatch.skipped import Skipped
from segbatch.text import redact_text


def digest(*parts: str, length: int = 8) -> str:
    """Hex digest of ``parts``, ``length`` characters; the separator cannot occur in a part unescaped."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "little") + data)
    return h.hexdigest()[:length]


# 64 bits of name and of version; rows version 2 and earlier had 32 and 24, in which shards could collide.
_FILENAME = re.compile(r"(.+\.(?:[0-9a-f]{16}\.[0-9a-f]{16}|[0-9a-f]{8}\.[0-9a-f]{6}))-(\d{5,})(-end)?\.parquet")


@dataclass(frozen=True)
class Shard:
    """One input object that is read front to back: a tar, a Parquet file, or an index of image URIs.

    ``name`` is the path relative to the corpus root and unique in the corpus; image ids begin with it.
    ``version`` changes when the object's content does (size and etag, or size and mtime).
    ``records`` is the number of records if the format tells without reading, else None.
    ``layout`` is what the shard's format found out while planning, so that reading finds what was planned: the names
    of loose images, where in a manifest to start, which columns of a table to read. Picklable; no other code reads it.
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
        """What the committed files of this shard are called by, whatever its version."""
        slug = re.sub(r"[^A-Za-z0-9_]+", "-", self.name).strip("-")[-48:].strip("-") or "shard"
        return f"{slug}.{digest(self.name, length=16)}"

    @property
    def id(self) -> str:
        """Key and version: names the committed files, so that changed content gets other names."""
        return f"{self.key}.{digest(self.version, length=16)}"


@dataclass(frozen=True)
class Corpus:
    """The shards that a job's inputs name, each once; names are relative to ``root`` ("" across kinds of stores).

    ``skipped`` is what the listings of the inputs hold besides. ``image_column`` is the column of the images in all
    tables, where only the values of several columns told which it is. ``notes`` say for a plan, as (subject, sentence),
    which columns were chosen, ``warnings`` what is likely not meant.
    """

    root: str
    shards: list[Shard]
    skipped: Skipped = field(default_factory=Skipped)
    image_column: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChunkId:
    """Identity of one chunk: records ``[index * size, …)`` of a shard, for the run's fixed chunk size.

    ``last`` marks the chunk that ends its shard. It is part of the file name, so that a listing alone
    tells which shards are complete.
    """

    shard_id: str
    index: int
    last: bool

    @property
    def filename(self) -> str:
        return f"{self.shard_id}-{self.index:05d}{'-end' if self.last else ''}.parquet"

    @staticmethod
    def parse(filename: str) -> ChunkId | None:
        """The identity behind a file name, or None for a name this package did not give."""
        m = _FILENAME.fullmatch(filename)
        return ChunkId(m[1], int(m[2]), m[3] is not None) if m else None


@dataclass(frozen=True)
class ChunkSelection:
    """Chunk indices of one shard: ``first`` up to ``stop`` (None: to the end of the shard), without those in ``done``.

    It is a predicate, not a list: how many chunks a tar has is unknown until its end.
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
        """Whether at most one chunk can be read."""
        return self.wanted.stop == self.wanted.first + 1


@dataclass(frozen=True)
class RecordError:
    """Why a record has no mask: ``stage`` (read, decode, segment, refine), a stable ``type``, a sentence."""

    stage: str
    type: str
    message: str


@dataclass(frozen=True)
class Scores:
    """Coarse class scores of one image: ``values`` float16 (K, h, w) log-probabilities of classes ``class_ids`` (K,).

    They are normalized over all classes of the network, also those that are left out, which cannot win at any pixel.
    ``height, width`` are the image's own size in pixels, ``h, w`` that size over ``stride``, rounded up; the center of
    cell (i, j) lies at pixel ``((i + 0.5) * stride - 0.5, (j + 0.5) * stride - 0.5)``.
    """

    values: np.ndarray
    class_ids: np.ndarray
    height: int
    width: int
    stride: int


@dataclass(frozen=True)
class ClassCount:
    """One class in one image: its pixels, its share of them, and the mean confidence of its pixels (float32 value)."""

    class_id: int
    pixels: int
    fraction: float
    confidence: float


@dataclass(frozen=True)
class Record:
    """One input record at any stage: encoded image bytes, then coarse scores, then the mask; or the error instead.

    ``mask`` is PNG bytes, ``classes`` its classes, most pixels first. ``confidence`` and ``marginal`` are means over
    the pixels of the mask: of the network's probability of their labels, and of the refiner's.
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

    def failed(self, stage: str, kind: str, message: str) -> Record:
        """This record as an error row: its identity and, if known, its size."""
        error = RecordError(stage, kind, redact_text(message)[:2000])
        return Record(self.image_id, self.source, self.index, height=self.height, width=self.width, error=error)


@dataclass
class Chunk:
    """A fixed slice of one shard: what is read, batched, refined, committed, retried and resumed.

    Every stage takes a chunk and returns it with its records further on their way. ``timings`` are the seconds of each
    stage so far; ``skipped`` counts what the shard holds between these records and is not a record.
    """

    id: ChunkId
    records: list[Record]
    timings: dict[str, float] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)
