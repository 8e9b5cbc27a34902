"""Inputs of any mix of formats as one source of shards and chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from segbatch.errors import SourceError
from segbatch.records import ALL_CHUNKS, Chunk, ChunkSelection, Corpus, Shard
from segbatch.skipped import Skipped
from segbatch.sources.assignment import by_format
from segbatch.sources.corpus import common_root, prefix_below
from segbatch.sources.formats import FORMATS, Listing, PlannedShards, ReadOptions
from segbatch.storage.fetch import CONCURRENT
from segbatch.storage.listing import Listed, list_input
from segbatch.storage.tables import refuse_tables
from segbatch.storage.uri import is_uri, join
from segbatch.text import escape_invalid_utf8, redact

_INDEXED_AT_ONCE = 8


def divided(shards: Iterable[Shard], size: int) -> list[Shard]:
    """Return the shards that a run with this chunk size uses: loose images in shards of one chunk each."""
    return [part for shard in shards for part in FORMATS[shard.format].divide(shard, size)]


class Source:
    """Lists the shards of any mix of tars, Parquet files, folders, globs and manifests, and reads each by its format.

    Picklable. Nothing is opened before ``corpus``.

    Raises:
        SpecError: ``options.format`` is not registered.
    """

    def __init__(self, inputs: list[str], options: ReadOptions) -> None:
        if options.format is not None:
            FORMATS[options.format]  # raises SpecError for an unknown name
        self._inputs, self._options = list(inputs), options

    def shards(self) -> list[Shard]:
        """Return ``corpus().shards``."""
        return self.corpus().shards

    def corpus(self, root: str | None = None, beside: Sequence[str] = ()) -> Corpus:
        """List every shard of the inputs once: by format, then in the order of the inputs and of names.

        Args:
            root: Folder that names are relative to; by default the deepest one that contains all inputs.
            beside: Folders of inputs that may follow, which that folder contains, too.

        Raises:
            SourceError: The inputs hold nothing to read, or cannot be planned.
            OutsideRoot: An input is not below ``root``.
        """
        listed = self._listed()
        if root is None:
            root = common_root([*(redact(item.root) for _, item in listed), *map(redact, beside)])
        listings = {name: Listing(root) for name in FORMATS}
        skipped = Skipped()
        for given, item in listed:
            prefix = prefix_below(root, redact(item.root), given)
            groups = by_format(item, self._options.format)
            if item.by != "name":
                chosen = [e.name for entries in groups.values() for e in entries]
                refuse_tables(self._options.files, item.root, chosen, item.marks, whole=item.by == "folder")
            skipped.merge(item.skipped.below(escape_invalid_utf8(prefix)))
            for name, entries in groups.items():
                listings[name].folders.append((prefix, item.root, entries))
        _refuse_repeated_files([item for _, item in listed])
        planned = [
            FORMATS[name].shards(listing, self._options) for name, listing in listings.items() if listing.folders
        ]
        return _corpus(root, planned, skipped)

    def _listed(self) -> list[tuple[str, Listed]]:
        """List all inputs, in their order; several of a remote store at once, as each costs a request."""
        if any(is_uri(given) for given in self._inputs):
            with ThreadPoolExecutor(CONCURRENT) as pool:
                listings = list(pool.map(lambda given: list_input(self._options.files, given), self._inputs))
        else:
            listings = [list_input(self._options.files, given) for given in self._inputs]
        return [(given, item) for given, items in zip(self._inputs, listings, strict=True) for item in items]

    def check(self, shards: Sequence[Shard]) -> None:
        """Look into the first shards of each format. Costs at most a few requests per format.

        Raises:
            SourceError: All of them have a problem, so that probably all shards have it.
        """
        problems: list[str] = []
        for name in FORMATS:
            if group := [shard for shard in shards if shard.format == name]:
                problems += FORMATS[name].problems(group, self._options)
        if problems:
            raise SourceError("\n".join(problems))

    def starts(self, shard: Shard, size: int) -> list[int]:
        """Return the first chunk of each read task of a shard (``Format.starts``)."""
        return FORMATS[shard.format].starts(shard, size)

    def index(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards, which are read in several slices, with the layout for that (``Format.index``)."""
        with ThreadPoolExecutor(_INDEXED_AT_ONCE) as pool:
            return list(pool.map(lambda shard: FORMATS[shard.format].index(shard, self._options), shards))

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection = ALL_CHUNKS) -> Iterator[Chunk]:
        """Yield the wanted chunks of a shard (``Format.chunks``)."""
        if size < 1:
            raise ValueError(f"a chunk holds at least one record, got size = {size}")
        return FORMATS[shard.format].chunks(shard, size, wanted, self._options)


def _corpus(root: str, planned: Sequence[PlannedShards], skipped: Skipped) -> Corpus:
    shards = [shard for part in planned for shard in part.shards]
    _refuse_repeated_names(shards)
    notes: Counter[tuple[str, str]] = sum((part.notes for part in planned), Counter())
    totals: Counter[str] = Counter()
    for (subject, _), count in notes.items():
        totals[subject] += count
    shown = tuple(
        (subject, text if count == totals[subject] else f"{text} ({count:,} of {totals[subject]:,} shards)")
        for (subject, text), count in notes.items()
    )
    image_column = next((part.image_column for part in planned if part.image_column is not None), None)
    return Corpus(root, shards, skipped, image_column, shown, tuple(w for part in planned for w in part.warnings))


def _refuse_repeated_files(listed: Sequence[Listed]) -> None:
    seen: set[str] = set()
    for item in listed:
        for entry in item.entries:
            uri = redact(join(item.root, entry.name))  # signatures differ for the same object
            if uri in seen:
                raise SourceError(f"{uri}: is named by two inputs; give each file once")
            seen.add(uri)


def _refuse_repeated_names(shards: Sequence[Shard]) -> None:
    names: set[str] = set()
    for shard in shards:
        if shard.name in names:
            raise SourceError(f"{shard.name}: two shards would have this name; give their common folder as the input")
        names.add(shard.name)
