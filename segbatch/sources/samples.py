"""Samples of a tar: adjacent members with one key, of which one image counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segbatch.errors import RecordFailure
from segbatch.sources.formats import EXTENSIONS
from segbatch.sources.io import too_large
from segbatch.sources.tar import Member

# By preference: beside a photograph (jpg), a png is nearly always its label map.
_PREFERRED = ("jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp", "gif")
_IMAGES = (*_PREFERRED, *(e[1:] for e in EXTENSIONS["images"] if e[1:] not in _PREFERRED))
_REMEMBERED = 20


@dataclass
class Sample:
    """Adjacent members with one key, as far as they are read; of the images only the one that counts is held.

    ``rivals`` are those that count as much, ``equal`` their number, ``fields`` images that count less, ``others`` no
    images: of each the first few extensions are remembered. ``images`` counts all images.
    """

    key: str
    others: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    equal: int = 0
    images: int = 0
    rank: int = len(_IMAGES) + 1
    data: bytes | None = None
    failure: RecordFailure | None = None
    complete: bool = False

    def add(self, extension: str, member: Member, limit: int, wanted: bool) -> bool:
        """Whether the member is an image."""
        if not _is_image(extension):
            _remember([extension], self.others)
            return False
        self.images += 1
        rank = _rank(extension)
        if rank >= self.rank:
            same = rank == self.rank
            self.equal += same
            _remember([extension], self.rivals if same else self.fields)
            return True
        _remember(self.rivals, self.fields)
        self.rank, self.data, self.failure, self.complete = rank, None, None, False
        self.rivals, self.equal = [extension], 1
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
        return True

    def problem(self) -> RecordFailure | None:
        """Why the sample has no image that can be told, or None."""
        if self.equal > 1:
            names = ", ".join(self.rivals) + (", …" if self.equal > len(self.rivals) else "")
            return RecordFailure(
                "read",
                "AmbiguousImage",
                f"sample {self.key!r} has {self.equal} images: {names}; name the one that is meant KEY.jpg",
            )
        return self.failure


def _remember(extensions: Sequence[str], among: list[str]) -> None:
    """An archive may hold any number of members with one key."""
    among.extend(extensions[: _REMEMBERED - len(among)])


def _is_image(extension: str) -> bool:
    return extension.rpartition(".")[2].lower() in _IMAGES


def _rank(extension: str) -> int:
    lower = extension.lower()
    return _IMAGES.index(lower) if lower in _IMAGES else len(_IMAGES)
