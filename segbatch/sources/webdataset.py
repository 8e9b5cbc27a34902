"""WebDataset: tar shards whose adjacent members with one key are a sample."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from segbatch.chunk import Chunk, Record, Shard
from segbatch.errors import RecordFailure
from segbatch.sources.chunking import ReadOptions, UniqueIds, check_size, chunked
from segbatch.sources.io import Files, shard_failure, shown_uri, too_large
from segbatch.sources.tar import Member, open_tar

# By preference: beside a photograph (jpg), a png is nearly always its label map.
_IMAGES = ("jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp", "gif")
_REMEMBERED = 20
_SPLIT = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)


@dataclass
class _Sample:
    """Members with one key, as far as they are read; of the images only the one that counts is held.

    ``rivals`` are those that count as much. Of them, and of ``others``, the first few are remembered.
    """

    key: str
    others: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    chosen: str | None = None
    data: bytes | None = None
    failure: RecordFailure | None = None
    complete: bool = False

    def add(self, extension: str, member: Member, limit: int, wanted: bool) -> None:
        if not _is_image(extension):
            _remember(extension, self.others)
            return
        if self.chosen is not None and _rank(self.chosen) <= _rank(extension):
            if _rank(self.chosen) == _rank(extension):
                _remember(extension, self.rivals)
            return
        self.chosen, self.data, self.failure, self.complete = extension, None, None, False
        self.rivals = [extension]
        if member.link is not None:
            self.failure = RecordFailure(
                "read",
                "LinkedImage",
                f"{member.name}: is a link to {member.link}, the archive holds no bytes of its own for it; "
                "pack the files that links point to (tar --dereference --hard-dereference)",
            )
        elif member.size > limit:
            self.failure = too_large(member.name, member.size, limit)
        if wanted and self.failure is None:
            self.data = member.read()
        else:
            member.skip()  # a member that is cut off counts the same whether it is wanted or not
        self.complete = True

    def problem(self) -> RecordFailure | None:
        """Why the sample has no image that can be told, or None."""
        if self.chosen is None:
            found = ", ".join(sorted(set(self.others)))
            return RecordFailure("read", "NoImage", f"no image among the members ({found}) of sample {self.key!r}")
        if len(self.rivals) > 1:
            return RecordFailure(
                "read",
                "AmbiguousImage",
                f"sample {self.key!r} has several images: {', '.join(self.rivals)}; name the one that is meant KEY.jpg",
            )
        return self.failure


class WebDataset:
    """Reads ``.tar``, ``.tar.gz`` and ``.tgz`` shards in one pass.

    The key is the path up to the first dot of its last part; members without a dot, or whose last part begins
    with one, are no part of any sample. The image of a sample is KEY.jpg, or else KEY.jpeg, .webp, .png, .tif,
    .tiff, .bmp, .gif in this order; only if there is none, the single member such as KEY.input.jpg. Error rows:
    NoImage, AmbiguousImage, LinkedImage, RecordTooLarge, SplitSample (the key occurred before, with others in
    between), and at the end of a damaged shard one of TruncatedShard, CorruptShard, MissingObject, UnreadableObject.
    """

    def __init__(self, files: Files, options: ReadOptions) -> None:
        self._files, self._options = files, options

    def chunks(self, shard: Shard, size: int, skip: Collection[int] = ()) -> Iterator[Chunk]:
        """See ``interfaces.Source``. The members of chunks in ``skip`` are passed over, not read."""
        check_size(size)
        return chunked(self._records(shard, size, frozenset(skip)), shard, size, skip)

    def _records(self, shard: Shard, size: int, skip: Collection[int]) -> Iterator[Record]:
        seen, row = UniqueIds(), 0
        sample: _Sample | None = None
        failure: RecordFailure | None = None
        try:
            with self._files.open(shard.uri) as stream:
                for member in open_tar(stream):
                    name = _SPLIT.fullmatch(member.name.removeprefix("./"))
                    if name is None:
                        continue
                    if sample is not None and sample.key != name[1]:
                        yield _record(shard, sample, row, seen)
                        sample, row = None, row + 1
                    sample = sample or _Sample(name[1])
                    wanted = row // size not in skip
                    sample.add(name[2].lower(), member, self._options.max_record_bytes, wanted)
        except RecordFailure as e:
            failure = e
        except Exception as e:
            failure = shard_failure(shard.uri, e)
        if sample is not None and (failure is None or sample.complete):
            yield _record(shard, sample, row, seen)
            row += 1
        if failure is not None:
            blank = Record(f"{shard.name}/{seen.unique(f'#{row}', row)}", shown_uri(shard.uri), row)
            yield blank.failed("read", failure.kind, f"{failure.message}; the records before it are kept")


def _remember(extension: str, among: list[str]) -> None:
    """An archive may hold any number of members with one key."""
    if len(among) < _REMEMBERED:
        among.append(extension)


def _is_image(extension: str) -> bool:
    return extension.rsplit(".", 1)[-1] in _IMAGES


def _rank(extension: str) -> int:
    return _IMAGES.index(extension) if extension in _IMAGES else len(_IMAGES)


def _record(shard: Shard, sample: _Sample, row: int, seen: UniqueIds) -> Record:
    if not seen.add(sample.key):
        record = Record(f"{shard.name}/{seen.unique(f'{sample.key}#{row}', row)}", shown_uri(shard.uri), row)
        return record.failed(
            "read",
            "SplitSample",
            f"sample {sample.key!r} occurred before, with other samples in between: its members are not adjacent; "
            "pack the shard sorted by key",
        )
    record = Record(f"{shard.name}/{sample.key}", shown_uri(shard.uri), row, sample.data)
    problem = sample.problem()
    return record if problem is None else record.failed(problem.stage, problem.kind, problem.message)
