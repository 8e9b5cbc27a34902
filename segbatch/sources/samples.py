"""Samples of a tar: adjacent members with one key, one of which is the image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from segbatch.errors import RecordFailure
from segbatch.sources.formats import KeyRule
from segbatch.sources.images import IMAGE_EXTENSIONS
from segbatch.sources.tar import Member
from segbatch.storage.files import too_large

# In order of preference: a png beside a jpg is nearly always its label map.
_PREFERRED = ("jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp", "gif")
_IMAGES = (*_PREFERRED, *(e[1:] for e in IMAGE_EXTENSIONS if e[1:] not in _PREFERRED))
_REMEMBERED = 20
# The key of a member, and what follows it in the name.
NAME_PARTS: dict[KeyRule, re.Pattern[str]] = {
    "first-dot": re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)", re.DOTALL),
    "last-dot": re.compile(r"((?:.*/|)[^./][^/]*)\.([^./]+)", re.DOTALL),
}


@dataclass(frozen=True)
class ImageRule:
    """Which member of a sample is its image, by the part of its name after the key.

    Without ``member`` it is KEY.jpg, else KEY.jpeg, .webp, .png, … in the order of ``_IMAGES``, else the only one such
    as KEY.input.jpg. With ``member`` only what it names is an image: ``left.jpg`` is KEY.left.jpg and
    KEY.cam1.left.jpg, ``left`` also KEY.left.png; a suffix alone, such as ``png`` or ``bin``, is KEY.png or KEY.bin.

    Attributes:
        label: Ending of members that hold labels and are not images.
    """

    member: str | None = None
    label: str | None = None

    def rank(self, extension: str) -> int | None:
        """Return the rank of a member, 0 for the best; None for a member that is not an image."""
        lower, suffix = extension.lower(), extension.lower().rpartition(".")[2]
        if self.label is not None and lower == self.label.lower():
            return None
        if self.member is None:
            return None if suffix not in _IMAGES else _IMAGES.index(lower) if lower in _IMAGES else len(_IMAGES)
        member = self.member.lower().lstrip("*.")
        if lower == member:
            return 0
        # A suffix alone does not match members with a field: KEY.png may be the image, KEY.seg.png its labels.
        stem = "" if member in _IMAGES else lower.removesuffix(f".{suffix}") if suffix in _IMAGES else ""
        return 1 if f".{stem}".endswith(f".{member}") or (stem and lower.endswith(f".{member}")) else None


@dataclass
class Sample:
    """Adjacent members with one key, as far as they are read. Holds only the image of the best rank.

    Attributes:
        others: First extensions of members that are not images.
        fields: First extensions of images of lower rank.
        rivals: First extensions of images of the best rank.
        equal: Number of images of the best rank.
        images: Number of all images.
        complete: Whether the image was read to its end.
    """

    key: str
    rule: ImageRule
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
        """Add a member; return whether it is an image."""
        rank = self.rule.rank(extension)
        if rank is None:
            _remember([extension], self.others)
            return False
        self.images += 1
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
            member.skip()  # detects truncation, so that records do not depend on which chunks are wanted
        self.complete = True
        return True

    def problem(self) -> RecordFailure | None:
        """Return why the sample has no image, or None."""
        if self.equal > 1:
            names = ", ".join(self.rivals) + (", …" if self.equal > len(self.rivals) else "")
            is_repeated = len({name.lower() for name in self.rivals}) == 1
            remedy = "pack them under keys of their own" if is_repeated else "choose one by --image-member"
            return RecordFailure(
                "read", "AmbiguousImage", f"sample {self.key!r} has {self.equal} images: {names}; {remedy}"
            )
        return self.failure


def _remember(extensions: Sequence[str], among: list[str]) -> None:
    """Append extensions, up to a limit: an archive may hold any number of members with one key."""
    among.extend(extensions[: _REMEMBERED - len(among)])
