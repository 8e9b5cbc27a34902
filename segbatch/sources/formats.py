"""The protocol that an input format implements, the types that it is given, and the registry of formats."""

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
    """How inputs are opened, and which records they hold. None: chosen by content.

    Attributes:
        files: Opens every URI, with the storage options of the job.
        format: Name of the format of all inputs.
        label_column: Parquet column, or ending of tar members, that holds labels and not images.
        is_resumed: The output has rows of these inputs. If several columns hold images, types and names decide, as they
            did for those rows.
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
    """A file of the inputs.

    Attributes:
        name: Path below the corpus root.
        version: Changes when the content does.
    """

    uri: str
    name: str
    size: int
    version: str

    def shard(self, format: str) -> Shard:
        """Return the file as a shard with an unknown number of records."""
        return Shard(self.uri, self.name, format, self.version, size=self.size)


@dataclass(frozen=True)
class Listing:
    """The files that one format reads, in order of the inputs.

    Attributes:
        root: Corpus root, "" if the inputs are in several kinds of stores.
        folders: (prefix of names, URI of a folder, objects below it).
    """

    root: str
    folders: list[tuple[str, str, list[ObjectInfo]]] = field(default_factory=list)

    def files(self) -> Iterator[InputFile]:
        for prefix, folder, objects in self.folders:
            for o in objects:
                yield InputFile(join(folder, o.name), prefix + shown_name(folder, o.name), o.size, o.version)


@dataclass(frozen=True)
class PlannedShards:
    """The shards of one format, with notes for the plan.

    Attributes:
        notes: Number of shards to which a note applies, by (subject, sentence), such as the columns that are read.
        warnings: What is probably not intended.
        image_column: Column of the images in all shards, if their values and not only its name identified it.
    """

    shards: list[Shard]
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()
    image_column: str | None = None


class Format(Protocol):
    """How files of one kind are planned as shards and read as chunks. Stateless: one object serves all jobs.

    Attributes:
        name: Value of ``--format`` and of ``Shard.format``.
        extensions: Endings of file names, lowercase, with the dot. The first registered format with a matching ending
            reads the file, unless ``--format`` selects another one.
        options: Fields of ``ReadOptions`` that default to None and apply to this format.
    """

    name: str
    extensions: tuple[str, ...]
    options: tuple[str, ...]

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        """Plan the files of ``listing``, which is not empty.

        What planning finds out and reading needs is stored in ``Shard.layout``, which no other code reads.

        Raises:
            SourceError: The files cannot be planned. A damaged file among others is not an error, but becomes an error
                row.
        """
        ...

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        """Yield one line for each problem of all ``shards`` that the first few of them show."""
        ...

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        """Return the shards that a run with chunks of ``size`` records uses instead of ``shard``."""
        ...

    def starts(self, shard: Shard, size: int) -> list[int]:
        """Return the first chunk of each read task of a shard, ascending from 0; ``[0]`` if it is read in one pass.

        Read tasks run in parallel. What one reads before its first chunk, an earlier one has read.
        """
        ...

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        """Return ``shard`` with a layout that makes reading it in several slices cheaper.

        Called once per shard, before its first slice is read.
        """
        ...

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        """Yield the wanted chunks of a shard in order, each but the last one with ``size`` records.

        A record that cannot be read has ``error`` set. A truncated shard ends with one such record; an empty shard is
        one empty chunk. Exactly one chunk of a shard has ``last`` set.
        """
        ...


FORMATS: Registry[Format] = Registry("format")
