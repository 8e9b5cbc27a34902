"""Detection of problems of a whole tar by its first members, before any work."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from segbatch.codecs.header import image_size
from segbatch.errors import SegbatchError
from segbatch.records import Shard
from segbatch.sources.formats import ReadOptions
from segbatch.sources.samples import NAME_PARTS, ImageRule
from segbatch.sources.tar import Member, open_tar
from segbatch.storage.files import shard_failure

if TYPE_CHECKING:
    from segbatch.sources.webdataset import Reading

_MEMBERS = 2000
_BYTES = 512 * 2**10  # of a remote object, in one request
_LARGE_MEMBERS = 16  # read by one request each if those bytes hold fewer
_MEASURED = 16  # images whose sizes are compared
_MAX_MEASURED_BYTES = 4 * 2**20
_MIN_SAMPLES = 2  # a single odd sample is an error row


def contradiction(shard: Shard, options: ReadOptions, new: Callable[[], Reading]) -> str | None:
    """Return why a shard fails as a whole, by its first members, or None.

    A shard that cannot be read has no contradiction: it becomes an error row.

    Args:
        new: Starts a reading of the shard.
    """
    try:
        with options.files.beginning(shard.uri, _BYTES) as stream:
            first = _FirstMembers(options, new())
            first.read(stream, _MEMBERS, measured=_MEASURED)
        if first.is_short:
            with options.files.open(shard.uri, read_ahead=False) as stream:
                first = _FirstMembers(options, new())
                first.read(stream, _LARGE_MEMBERS, measured=0)
    except (OSError, SegbatchError) as e:
        shard_failure(shard.uri, e)  # raises an outage; anything else is the shard's, and becomes its error row
        return None
    return first.contradiction()


@dataclass
class _FirstMembers:
    """One pass over the first members of a shard.

    Attributes:
        whole: Whether these are all members.
        is_short: Whether the bytes that were read hold too few members.
        without_image: Messages of samples without an image.
        areas: Pixels of the images that were measured, by key and field.
    """

    options: ReadOptions
    reading: Reading
    whole: bool = False
    is_short: bool = False
    records: int = 0
    without_image: list[str] = field(default_factory=list)
    areas: dict[str, dict[str, int]] = field(default_factory=dict)

    def read(self, stream: BinaryIO, members: int, measured: int) -> None:
        """Read the first ``members`` members, and the sizes of the first ``measured`` images."""
        archive = open_tar(stream)
        if archive.compression is not None:
            stream.seek(0)
            archive = open_tar(io.BytesIO(stream.read(_BYTES)))
        source = iter(archive)
        for record in self.reading.records(self._measured(itertools.islice(source, members), measured)):
            self.records += 1
            if record.error is not None and record.error.type == "NoImage":
                self.without_image.append(record.error.message)
        self.whole = self.reading.failure is None and next(source, None) is None
        has_few = self.reading.census.members < _LARGE_MEMBERS
        self.is_short = has_few and self.reading.failure is not None and archive.compression is None

    def _measured(self, members: Iterator[Member], left: int) -> Iterator[Member]:
        rule = ImageRule(label=self.options.label_column)
        for member in members:
            name = NAME_PARTS[self.options.key].fullmatch(member.name.removeprefix("./"))
            readable = not member.special and member.link is None and member.size <= _MAX_MEASURED_BYTES
            if left and name is not None and readable and rule.rank(name[2]) is not None:
                left -= 1
                if (size := image_size(member.read())) is not None:
                    self.areas.setdefault(name[1], {})[name[2].lower()] = size[0] * size[1]
            yield member

    def contradiction(self) -> str | None:
        census = self.reading.census
        if self.options.image_member is not None and len(self.without_image) == self.records >= _MIN_SAMPLES:
            return f"{self.without_image[0]}, nor in any other of the first {self.records:,} samples"
        failure = census.failure(self.whole)
        problem = census.ambiguity() or (failure.message if failure is not None else None)
        if problem is not None:
            return f"in its first {census.members:,} members {problem}"
        return self._smaller() if self.options.image_member is None else None

    def _smaller(self) -> str | None:
        """Return what to choose if the chosen images are smaller than others of their samples, as thumbnails are."""
        rule = ImageRule()
        larger: list[tuple[str, str]] = []
        compared = [areas for areas in self.areas.values() if len(areas) > 1]
        for areas in compared:
            best = min(areas, key=lambda extension: rule.rank(extension) or 0)
            largest = max(areas, key=lambda extension: areas[extension])
            if areas[largest] > areas[best]:
                larger.append((best, largest))
        if len(larger) < max(_MIN_SAMPLES, len(compared)):
            return None
        best, largest = larger[0]
        return (
            f"in its first samples {best}, which counts as the image, is smaller than {largest}; choose one by "
            f"--image-member {largest}, or {best}"
        )
