"""Checks of a whole archive: whether its members form samples, and whether keys distinguish its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from segbatch.errors import COLLAPSED_KEYS, NO_SAMPLES, RecordFailure
from segbatch.skipped import MAX_NAMES
from segbatch.sources.unique_ids import id_hash

# More images of one key are not one sample: the key rule maps the names of different images to one key.
_MAX_IMAGES_OF_A_KEY = 8
# Up to this number or fraction of images without a key of their own are error rows.
_MAX_ODD_IMAGES = 8
_MAX_ODD_FRACTION = 0.01
# This many of them fail an archive in which most images have no key of their own.
_MIN_SHARING = 3
_MAX_FIELDS = 65_536
_MAX_EXAMPLES = 3
# From this number of samples with several equal images, the fields that most of them have are offered as a choice.
_MIN_AMBIGUOUS = 2
_MAX_VIEWS = 256


@dataclass
class Census:
    """Counts the members of an archive as they are read.

    A field is what follows the key in the name of an image that is not the image of its sample, such as ``seg.png``.
    Holds a hash for each key that images share, and a name for each of up to ``_MAX_FIELDS`` fields.

    Attributes:
        members: Files in the archive.
        images: Members that are images.
        outside: Members that are not part of a sample.
        sharing: Images without a key of their own, which are not records.
    """

    key_rule: str
    members: int = 0
    images: int = 0
    outside: int = 0
    sharing: int = 0
    _outside_names: list[str] = field(default_factory=list)
    _samples: int = 0
    _crowded: int = 0
    _most_fields: tuple[int, str] = (0, "")
    _fields: dict[int, str] = field(default_factory=dict)  # the one image that has the field, or ""
    _of_key: dict[int, int] = field(default_factory=dict)
    _most_sharing: tuple[int, str] = (0, "")
    _ambiguous: int = 0
    _views: Counter[str] = field(default_factory=Counter)

    def add_member(self, is_image: bool) -> None:
        """Count a member of a sample."""
        self.members += 1
        self.images += is_image

    def add_outside(self, name: str) -> None:
        self.members += 1
        self.outside += 1
        if len(self._outside_names) < MAX_NAMES:
            self._outside_names.append(name)

    def add_sample(self, key: str, images: int, fields: Sequence[str], names: Sequence[str]) -> None:
        """Count a sample of ``images`` images. ``fields`` and ``names`` are those of its other images."""
        self._samples += 1
        self._crowded += images > _MAX_IMAGES_OF_A_KEY
        if images > self._most_fields[0]:
            self._most_fields = images, f"{key!r} ({_some(fields, images)})"
        for extension, name in zip(fields, names, strict=True):
            code = id_hash(extension.lower())
            if code in self._fields or len(self._fields) < _MAX_FIELDS:
                self._fields[code] = "" if code in self._fields else name

    def add_sharing(self, key: str, images: int, extensions: Sequence[str], repeated: bool) -> None:
        """Count images of one rank in one sample, or images (``repeated``) after a sample of the same key."""
        code = id_hash(key)
        self.sharing += images
        if not repeated:
            self._ambiguous += 1
            names = {extension.lower() for extension in extensions}
            self._views.update(name for name in names if name in self._views or len(self._views) < _MAX_VIEWS)
        self._of_key[code] = self._of_key.get(code, int(repeated)) + images
        if self._of_key[code] > self._most_sharing[0]:
            self._most_sharing = self._of_key[code], f"{key!r} ({_some(extensions, images)})"

    def unshared_fields(self) -> Iterator[str]:
        """Return names of images whose field no other sample has: it may be part of the image's name instead."""
        return (name for name in self._fields.values() if name)

    def ambiguity(self) -> str | None:
        """Return what to choose if most samples have the same several images (``left.jpg, right.jpg``), else None."""
        views = self._common_views()
        if not views or self._ambiguous <= self._samples:
            return None
        last_dot = "; if the dots belong to the names, run with --key last-dot" if self.key_rule == "first-dot" else ""
        return (
            f"{self._ambiguous:,} of {self._ambiguous + self._samples:,} samples have several images that count alike: "
            f"{_some(views, len(views), MAX_NAMES)}; choose one by --image-member {views[0]}{last_dot}"
        )

    def _common_views(self) -> list[str]:
        """Return the fields that most samples of several equal images have."""
        views = sorted(name for name, samples in self._views.items() if 2 * samples > self._ambiguous)
        return views if len(views) > 1 and self._ambiguous >= _MIN_AMBIGUOUS else []

    def failure(self, whole: bool) -> RecordFailure | None:
        """Return why the archive fails as a whole, or None. Without ``whole``, only what no later member can refute."""
        count, key = self._most_sharing
        mostly = self.sharing >= _MIN_SHARING and 2 * self.sharing > self.images
        often = self.sharing > max(_MAX_ODD_IMAGES, _MAX_ODD_FRACTION * self.images)
        if count > _MAX_IMAGES_OF_A_KEY or (whole and (mostly or often)):
            return self._collapsed(self.sharing, count, key)
        # Views of a sample have fields that other samples have too. 07.jpg, 08.jpg, … of a collapsed key do not.
        unshared = sum(1 for _ in self.unshared_fields())
        if whole and self._crowded and (2 * unshared > len(self._fields) or 2 * self._crowded < self._samples):
            count, key = self._most_fields
            return self._collapsed(count - 1, count, key)
        if whole and 2 * self.outside > self.members:
            return RecordFailure(
                "read",
                NO_SAMPLES,
                f"{self.outside} of the {self.members} members are not part of a sample, as their names have no suffix "
                "or begin with a dot; pack the images under names such as KEY.jpg. They are "
                + _some(self._outside_names, self.outside, MAX_NAMES),
            )
        return None

    def _collapsed(self, images: int, count: int, key: str) -> RecordFailure:
        remedy = "pack each image under a key of its own"
        if self.key_rule == "first-dot":
            remedy = "if the dots belong to the names, run with --key last-dot, otherwise " + remedy
        if views := self._common_views():
            remedy = f"if they are images of one sample, choose one by --image-member {views[0]}; {remedy}"
        return RecordFailure(
            "read",
            COLLAPSED_KEYS,
            f"{images} of the {self.images} images have no key of their own (key rule {self.key_rule}): "
            f"{count} have the key {key}; {remedy}",
        )


def _some(names: Sequence[str], of: int, shown: int = _MAX_EXAMPLES) -> str:
    return ", ".join(names[:shown]) + (", …" if of > shown else "")
