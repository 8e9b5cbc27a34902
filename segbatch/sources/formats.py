"""The protocol that a format of inputs implements, what it is given, and the registry of formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from segbatch.records import Chunk, ChunkSelection, Shard
from segbatch.registry import Registry
from segbatch.storage.base import ObjectInfo
from segbatch.storage.files import Files, shown_name
from segbatch.storage.uri import join

DEFAULT_MAX_RECORD_BYTES = 512 * 2**20
KeyRule = Literal["first-dot", "last-dot"]


@dataclass(frozen=True)
class ReadOptions:
    """How the inputs are opened, and what decides which records they hold. None: found by itself.

    Attributes:
        files: Opens every URI, with the job's storage options.
        format: Name of the format of all inputs.
        label_column: A column of a table, or what follows the key of a tar's member, that holds labels, not images.
        is_resumed: Rows of these inputs exist. Where values leave several columns of images, types and names decide,
            as they did for those rows.
    """

    files: Files = field(default_factory=Files, compare=False, repr=False)
    format: str | None = None
    image_column: str | None = None
    id_column: str | None = None
    uri_column: str = "uri"
    max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
    key: KeyRule = "first-dot"
    image_member: str | None = None
    label_column: str | None = None
    is_resumed: bool = False


@dataclass(frozen=True)
class InputFile:
    """A file of the inputs. ``name`` is its path below the corpus root, ``version`` changes when its content does."""

    uri: str
    name: str
    size: int
    version: str

    def shard(self, format: str) -> Shard:
        """Return the file as a shard whose number of records is unknown."""
        return Shard(self.uri, self.name, format, self.version, size=self.size)


@dataclass(frozen=True)
class Listing:
    """The files that one format reads: (prefix of names, URI of a folder, objects below it), in order of the inputs.

    ``root`` is the corpus root, "" if the inputs are in different kinds of stores.
    """

    root: str
    folders: list[tuple[str, str, list[ObjectInfo]]] = field(default_factory=list)

    def files(self) -> Iterator[InputFile]:
        for prefix, folder, objects in self.folders:
            for o in objects:
                yield InputFile(join(folder, o.name), prefix + shown_name(folder, o.name), o.size, o.version)


@dataclass(frozen=True)
class PlannedShards:
    """The shards of one format, and what a plan says of them.

    Attributes:
        notes: How many shards each note, as (subject, sentence), is true of: which columns are read, for example.
        warnings: What is likely not meant.
        image_column: The column of the images in all shards, if values and not only names told it.
    """

    shards: list[Shard]
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()
    image_column: str | None = None


class Format(Protocol):
    """How files of one kind are planned as shards and read as chunks. Has no state: one object serves all jobs.

    Attributes:
        name: Value of ``--format``, and ``Shard.format``.
        extensions: Lowercase endings of file names, with the dot. A file is of the first format registered for its
            ending; ``--format`` chooses another one.
        options: Fields of ``ReadOptions`` that are None by default and mean something in this format.
    """

    name: str
    extensions: tuple[str, ...]
    options: tuple[str, ...]

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        """Plan the files of ``listing``, which are at least one.

        What is found out on the way and needed for reading goes into ``Shard.layout``, which no other code reads.

        Raises:
            SourceError: The files cannot be planned. A single damaged file is no reason: it is an error row.
        """
        ...

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        """Yield what a look into the first of ``shards`` shows to be wrong with all of them, in one line each."""
        ...

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        """Return the shards that a run with chunks of ``size`` records reads and commits instead of ``shard``."""
        ...

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        """Return ``shard`` with what spares work if it is read in several slices. Called once, before any is read."""
        ...

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        """Yield the wanted chunks of a shard, of ``size`` records each but for the last one, in order.

        A record that cannot be read is a record with ``error`` set. A shard that breaks off in the middle
        ends with one such record; an empty shard is one empty chunk. Exactly one chunk of a shard has ``last`` set.
        """
        ...


FORMATS: Registry[Format] = Registry("format")
