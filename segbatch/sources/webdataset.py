"""WebDataset: tar shards in which the members with one key are a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial

from segbatch.contents import recognized
from segbatch.errors import Outage, RecordFailure
from segbatch.records import NO_CHUNKS, Chunk, ChunkSelection, Record, Shard
from segbatch.skipped import Skipped
from segbatch.sources.census import Census
from segbatch.sources.chunking import chunked
from segbatch.sources.compression import MAGIC_BYTES, compression_of
from segbatch.sources.first_bytes import mistaken
from segbatch.sources.first_members import contradiction
from segbatch.sources.formats import Listing, PlannedShards, ReadOptions
from segbatch.sources.samples import NAME_PARTS, ImageRule, Sample
from segbatch.sources.tar import Member, open_tar
from segbatch.sources.unique_ids import UniqueIds, id_hash
from segbatch.storage.files import shard_failure
from segbatch.text import escape_invalid_utf8, redact, without_query

_CHECKED = 3  # tars whose first members are looked at
_SUFFIXES = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
_MAX_SHOWN_NAME = 300
# Names of samples whose image has not been read yet; of more samples, only their hashes.
_MAX_WAITING_BYTES = 16 * 2**20
_OF_MACOS = re.compile(r"\._|\.DS_Store$")


class WebDataset:
    """Tar shards, plain or compressed (gzip, bzip2, xz, zstd), read in one pass.

    The key of a member is its path up to the first dot of its last part, with ``key = "last-dot"`` up to the last one.
    ``samples.ImageRule`` determines which member is the image. The members of a sample are adjacent, except for those
    that are not images. Counted as skipped: members whose last part has no dot or starts with one, what is not a file,
    and images that share their key with an error row.

    Error rows: NoImage (at the end of the shard), AmbiguousImage, LinkedImage, RecordTooLarge, SplitSample (images of
    one key with other samples between them). The last row of a damaged shard is TruncatedShard, CorruptShard,
    MissingObject or UnreadableObject. The last row of a tar that does not hold samples is CollapsedKeys or NoSamples,
    which fails the job.
    """

    name = "webdataset"
    extensions: tuple[str, ...] = (
        *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz"),
        *(".tar.xz", ".txz", ".tar.zst", ".tzst"),
    )
    options: tuple[str, ...] = ("image_member",)

    def shards(self, listing: Listing, options: ReadOptions) -> PlannedShards:
        """See ``Format.shards``: one shard per tar. Reads nothing."""
        shards = [file.shard(self.name) for file in listing.files()]
        notes: Counter[tuple[str, str]] = Counter()
        if options.image_member is not None:
            notes["images", f"member {options.image_member} of each sample"] = len(shards)
        return PlannedShards(shards, notes)

    def problems(self, shards: Sequence[Shard], options: ReadOptions) -> Iterator[str]:
        """See ``Format.problems``. Costs a request for each of the first few tars; reads headers of local files."""

        def kind_of(shard: Shard, head: bytes) -> str:
            compression = compression_of(head[:MAGIC_BYTES])
            # With --format a tar of any name may be compressed.
            if compression and options.format is None and without_query(shard.uri).lower().endswith(".tar"):
                suffix = _SUFFIXES[compression]
                return (
                    f"{compression} data: decompress it, name it .tar{suffix}, or set the option format to {self.name}"
                )
            return recognized(head, {"a tar archive", *(f"{name} data" for name in _SUFFIXES)})

        if problem := mistaken(options.files, shards, "a tar", kind_of):
            yield problem
            return
        for shard in shards[:_CHECKED]:
            if problem := contradiction(shard, options, partial(Reading, shard, options, 2**62, NO_CHUNKS)):
                yield f"{redact(shard.uri)}: {problem}"

    def divide(self, shard: Shard, size: int) -> list[Shard]:
        """See ``Format.divide``."""
        return [shard]

    def starts(self, shard: Shard, size: int) -> list[int]:
        """See ``Format.starts``: a tar is read in one pass."""
        return [0]

    def index(self, shard: Shard, options: ReadOptions) -> Shard:
        """See ``Format.index``."""
        return shard

    def chunks(self, shard: Shard, size: int, wanted: ChunkSelection, options: ReadOptions) -> Iterator[Chunk]:
        """See ``Format.chunks``. Members of other chunks are skipped, not read."""
        reading = Reading(shard, options, size, wanted)
        return chunked(_records(reading), shard, size, wanted, reading.take_skipped)


def _records(reading: Reading) -> Iterator[Record]:
    # Closes the archive also after a truncated member.
    with closing(reading.members()) as members:
        yield from reading.records(members)


class Reading:
    """One pass over the members of a shard. Its records do not depend on which chunks are wanted.

    Attributes:
        census: Counts of the members so far.
        failure: Why the shard ended early, or None.
    """

    def __init__(self, shard: Shard, options: ReadOptions, size: int, wanted: ChunkSelection) -> None:
        self._shard, self._options, self._size, self._wanted = shard, options, size, wanted
        self._source = escape_invalid_utf8(redact(shard.uri))
        self._rule = ImageRule(options.image_member, options.label_column)
        self._row = 0
        self._ids, self._waiting = UniqueIds(), _Waiting()
        self.census = Census(options.key)
        self.failure: RecordFailure | None = None
        self._skipped = Skipped()

    def members(self) -> Generator[Member, None, None]:
        with self._options.files.open(self._shard.uri) as stream:
            yield from open_tar(stream)

    def take_skipped(self) -> Skipped:
        """Return what was skipped since the last call."""
        skipped, self._skipped = self._skipped, Skipped()
        return skipped

    def records(self, members: Iterator[Member]) -> Iterator[Record]:
        """Yield every record, in order."""
        sample: Sample | None = None
        parts = NAME_PARTS[self._options.key]
        try:
            for member in members:
                name = None if member.special else parts.fullmatch(member.name.removeprefix("./"))
                if name is None:
                    self._skip_outside(member)
                    continue
                if sample is not None and sample.key != name[1]:
                    yield from self._finished(sample)
                    sample = None
                sample = sample or Sample(name[1], self._rule)
                is_wanted = self._row // self._size in self._wanted
                is_image = sample.add(name[2], member, self._options.max_record_bytes, is_wanted)
                self.census.add_member(is_image)
        except RecordFailure as e:
            self.failure = e
        except (OSError, Outage) as e:
            self.failure = shard_failure(self._shard.uri, e)
        if sample is not None and (self.failure is None or sample.complete):
            yield from self._finished(sample)
        yield from self._end()

    def _skip_outside(self, member: Member) -> None:
        last, name = member.name.rpartition("/")[2], self._shown(member.name)
        if _OF_MACOS.match(last):
            reason = "members that macOS adds (._*, .DS_Store)"
        else:
            self.census.add_outside(name)
            reason = "members without a suffix"
            if member.special:
                reason = "members that are devices, pipes or of a vendor's own type"
            elif last.startswith("."):
                reason = "members whose names begin with a dot"
        self._skipped.add(reason, name)

    def _shown(self, name: str) -> str:
        return escape_invalid_utf8(f"{self._shard.name}/{name}")[:_MAX_SHOWN_NAME]

    def _finished(self, sample: Sample) -> Iterator[Record]:
        if not sample.images:
            if sample.key not in self._ids:
                self._waiting.add(sample)
            return
        self._waiting.remove(sample.key)
        if not self._ids.add(sample.key):
            self.census.add_sharing(sample.key, sample.equal, sample.rivals, repeated=True)
            split = RecordFailure(
                "read",
                "SplitSample",
                f"sample {sample.key!r} has an image already, with other samples in between: its images are not "
                "adjacent; pack the shard sorted by key",
            )
            yield self._record(self._ids.unique(f"{sample.key}#{self._row}", self._row), split)
        else:
            if sample.equal > 1:
                self.census.add_sharing(sample.key, sample.equal, sample.rivals, repeated=False)
            else:
                names = [self._shown(f"{sample.key}.{extension}") for extension in sample.fields]
                self.census.add_sample(sample.key, sample.images, sample.fields, names)
            yield self._record(sample.key, sample.problem(), sample.data)
        self._skip_sharing(sample)

    def _skip_sharing(self, sample: Sample) -> None:
        """Count the images of a sample that cannot be distinguished from the first, which is an error row."""
        reason = "images that share their key with another one"
        for extension in sample.rivals[1:]:
            self._skipped.add(reason, self._shown(f"{sample.key}.{extension}"))
        if unnamed := sample.equal - len(sample.rivals):
            self._skipped.add(reason, self._shown(f"{sample.key}.{sample.rivals[-1]}"), unnamed)

    def _end(self) -> Iterator[Record]:
        """Yield the records that are known at the end only, of samples without an image and of a failed shard."""
        for name in self.census.unshared_fields():
            self._skipped.add("images beside the image of their sample, in a field that no other sample has", name)
        far = "" if self.failure is None else ", as far as the shard can be read"
        for key, extensions in self._waiting:
            member = self._options.image_member
            what = "image" if member is None else f"member {member!r} (--image-member)"
            message = f"no {what} among the members ({extensions}) of sample {key!r}{far}"
            name = self._ids.unique(key or f"#{self._row}", self._row)
            yield self._record(name, RecordFailure("read", "NoImage", message))
        if (failure := self.census.failure(whole=self.failure is None)) is not None:
            yield self._last(failure.type, f"{self._shard.name}: {failure.message}")
        if self.failure is not None:
            yield self._last(self.failure.type, f"{self.failure.message}; the records before it are kept")

    def _last(self, kind: str, message: str) -> Record:
        return self._record(self._ids.unique(f"#{self._row}", self._row), RecordFailure("read", kind, message))

    def _record(self, name: str, problem: RecordFailure | None, data: bytes | None = None) -> Record:
        record = Record(f"{self._shard.name}/{name}", self._source, self._row, data)
        self._row += 1
        return record if problem is None else record.failed(problem.stage, problem.type, problem.message)


class _Waiting:
    """Samples without an image so far, as (key, extensions), in order of their first members."""

    def __init__(self) -> None:
        self._samples: dict[int, tuple[str, str]] = {}
        self._bytes = 0

    def add(self, sample: Sample) -> None:
        code = id_hash(sample.key)
        if code not in self._samples:
            names = sample.key, ", ".join(sorted(set(sample.others)))[:_MAX_SHOWN_NAME]
            if self._bytes > _MAX_WAITING_BYTES:
                names = "", "not kept"
            self._samples[code] = names
            self._bytes += sum(map(len, names))

    def remove(self, key: str) -> None:
        if self._samples:
            self._bytes -= sum(map(len, self._samples.pop(id_hash(key), ())))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._samples.values())
