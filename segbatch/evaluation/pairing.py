"""Pairs of images and labels by their names, and by their folders where names are ambiguous."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segbatch.errors import SpecError
from segbatch.evaluation.label_images import LabelFile
from segbatch.sources import FORMATS
from segbatch.sources.images import IMAGE_EXTENSIONS
from segbatch.text import escape_control_characters, redact, without_query

_SHARDS = (*FORMATS["webdataset"].extensions, *FORMATS["parquet"].extensions)
MAX_EXAMPLES = 5
_MAX_HINTS = 4
_MAX_TRIED, _MAX_PAIRED = 20, 1000  # suffixes that are tried for a message, and images that each is tried on


@dataclass(frozen=True)
class ImageName:
    """An image: its path below the input, or its id; and its URI if it is known."""

    name: str
    uri: str = ""


@dataclass(frozen=True)
class Suffix:
    """The different endings of the names of images and of their labels, before the extension."""

    image: str = ""
    label: str = ""

    @staticmethod
    def of(text: str) -> Suffix:
        """Return the suffix of the option ``LABEL`` or ``IMAGE=LABEL``."""
        image, equals, label = text.rpartition("=")
        return Suffix(image, label) if equals else Suffix("", text)

    def __str__(self) -> str:
        return f"{self.image}={self.label}" if self.image else self.label


@dataclass(frozen=True)
class Pairing:
    """The result of ``pair``.

    Attributes:
        labels: The label of each image, by the index of the image.
        images_without: Names of images without a label.
        labels_without: Names of labels without an image.
        label_images: Names of images that are label files themselves.
    """

    labels: dict[int, LabelFile]
    images_without: list[str] = field(default_factory=list)
    labels_without: list[str] = field(default_factory=list)
    label_images: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return messages about what has no partner, by kind, with the first names."""
        images = len(self.labels) + len(self.images_without)
        kinds = (
            (f"of {images:,} images have no label", self.images_without),
            ("have no image", self.labels_without),
            ("files among the images are labels and are left out", self.label_images),
        )
        return [f"{len(names):,} {kind}: {_first(names)}" for kind, names in kinds if names]


@dataclass(frozen=True)
class _Path:
    folders: tuple[str, ...]
    stem: str


def pair(images: Sequence[ImageName], labels: Sequence[LabelFile], suffix: Suffix | None = None) -> Pairing:
    """Pair images with labels of the same name.

    ``x.jpg`` is paired with ``x.png`` and ``x.jpg.png``, with a suffix with ``x_mask.png``. Folders must not contradict
    each other: the path of one below the given folder is a suffix of the other's. If several images or labels of one
    name remain, an equal path is decisive, then the folders above. A label file is never an image.

    Raises:
        SpecError: The partner of an image is ambiguous; names the files. No image may get the label of another.
    """
    suffix = suffix or Suffix()
    label_paths = [_label_path(label, suffix) for label in labels]
    by_stem: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(label_paths):
        if path is not None:
            by_stem[path.stem].append(i)
    label_uris = {label.uri for label, path in zip(labels, label_paths, strict=True) if path}
    image_names, label_names = [image.name for image in images], [label.name for label in labels]
    claims: dict[int, list[tuple[tuple[int, ...], int]]] = defaultdict(list)
    for i, image in enumerate(images):
        if image.uri in label_uris:
            continue
        scored = [
            (_score(rank, image, path.folders, labels[k], label_path.folders), k)
            for rank, path in enumerate(_image_paths(image, suffix))
            for k in by_stem.get(path.stem, ())
            if (label_path := label_paths[k]) is not None and _agree(path.folders, label_path.folders)
        ]
        if scored:
            best = _best(scored, f"image {image.name}", label_names)
            claims[best[1]].append((best[0], i))
    pairs = {_best(images_of, f"label {labels[k].name}", image_names)[1]: labels[k] for k, images_of in claims.items()}
    taken = {label.uri for label in pairs.values()}
    return Pairing(
        pairs,
        [image.name for i, image in enumerate(images) if i not in pairs and image.uri not in label_uris],
        [label.name for label, path in zip(labels, label_paths, strict=True) if path and label.uri not in taken],
        [image.name for image in images if image.uri in label_uris],
    )


def has_name(labels: Sequence[LabelFile], suffix: Suffix) -> Callable[[ImageName], bool]:
    """Return a predicate: whether some label has the name of an image, in any folder.

    No other image can be paired.
    """
    stems = {path.stem for label in labels if (path := _label_path(label, suffix))}
    return lambda image: any(path.stem in stems for path in _image_paths(image, suffix))


def refusal(images: Sequence[ImageName], labels: Sequence[LabelFile], suffix: Suffix, given: str, where: str) -> str:
    """Return a message why none of ``images`` was paired, with a name of either side and a remedy."""
    used = f" with --label-suffix {suffix}" if suffix != Suffix() else ""
    text = f"labels: none of the {len(images):,} images of {where} has a label in {redact(given)}{used}"
    if not images:
        return text
    if len(pair(images, labels, suffix).label_images) == len(images):
        return f"{text}: all are among the labels; give labels by a pattern, as 'FOLDER/*.png', or by --label-suffix"
    text += f": images such as {images[0].name!r}, labels such as {labels[0].name!r}"
    hints = [f"--label-suffix {suffix}" for suffix in _suffixes_that_pair(images, labels)]
    if hints:
        return f"{text}; say what label names end in by {' or '.join(hints)}"
    names = {path.stem: i for i in images for path in _image_paths(i, suffix)}
    other = next(((names[p.stem], k) for k in labels if (p := _label_path(k, suffix)) and p.stem in names), None)
    if other is not None:
        return f"{text}; {other[0].name!r} and {other[1].name!r} have one name, in other folders: give those that match"
    return f"{text}; labels are paired by file name without extension, see --label-suffix"


def _first(names: Sequence[str]) -> str:
    shown = sorted(names)[:MAX_EXAMPLES]
    return ", ".join(map(escape_control_characters, shown)) + (", …" if len(names) > MAX_EXAMPLES else "")


def _best(
    scored: Sequence[tuple[tuple[int, ...], int]], what: str, names: Sequence[str]
) -> tuple[tuple[int, ...], int]:
    best = min(scored)
    equal = [names[k] for score, k in scored if score == best[0]]
    if len(equal) > 1:
        raise SpecError(
            f"labels: {what} fits {len(equal)} files: {', '.join(sorted(equal)[:MAX_EXAMPLES])}; names and folders do "
            "not tell which is meant: give one folder of images and of labels at a time, or other names"
        )
    return best


def _score(rank: int, image: ImageName, folders: tuple[str, ...], label: LabelFile, others: tuple[str, ...]) -> tuple:
    """Lower is better: the whole name, an equal path below both roots, the number of equal folders above."""
    same = 0
    for a, b in zip(_folders(image.uri)[::-1], _folders(label.uri)[::-1], strict=False):
        if a != b:
            break
        same += 1
    return (rank, folders != others, -same)


def _agree(folders: tuple[str, ...], others: tuple[str, ...]) -> bool:
    short = min(len(folders), len(others))
    return folders[len(folders) - short :] == others[len(others) - short :]


def _folders(path: str) -> tuple[str, ...]:
    return tuple(part for part in without_query(path).split("/")[:-1] if part)


def _image_paths(image: ImageName, suffix: Suffix) -> list[_Path]:
    """By the whole file name, and without an image extension (of other ids: without their last part)."""
    *folders, name = without_query(image.name).split("/")
    shard = max((i for i, part in enumerate(folders) if part.lower().endswith(_SHARDS)), default=-1)
    stem = _without_extension(name)
    stems = [name, stem if stem != name else os.path.splitext(name)[0]]
    if suffix.image:
        stems = [s.removesuffix(suffix.image) for s in stems if s.endswith(suffix.image)]
    return [_Path(tuple(folders[shard + 1 :]), s) for s in dict.fromkeys(stems)]


def _label_path(label: LabelFile, suffix: Suffix) -> _Path | None:
    *folders, name = label.name.split("/")
    stem = _without_extension(name)
    if not stem.endswith(suffix.label):
        return None
    return _Path(tuple(folders), stem.removesuffix(suffix.label))


def _without_extension(name: str) -> str:
    lower = name.lower()
    extension = next((e for e in IMAGE_EXTENSIONS if lower.endswith(e)), "")
    return name[: len(name) - len(extension)]


def _suffixes_that_pair(images: Sequence[ImageName], labels: Sequence[LabelFile]) -> list[Suffix]:
    """Suffixes under which labels have images, from the first names with a common prefix."""
    found: list[Suffix] = []
    for label in labels[:12]:
        name = _without_extension(label.name.rpartition("/")[2])
        for image in images[:200]:
            stem = _without_extension(image.name.rpartition("/")[2])
            shared = next((k for k, (a, b) in enumerate(zip(stem, name, strict=False)) if a != b), None)
            if shared is None:
                cut = min(len(stem), len(name))
            else:  # from a separator
                cut = max(stem.rfind(separator, 0, shared) for separator in "_-.")
            if cut > 0:
                found.append(Suffix(stem[cut:], name[cut:]))
    # Numbers give each pair of names a different suffix: those that several names share are tried.
    common = [s for s, _ in Counter(s for s in found if s != Suffix()).most_common(_MAX_TRIED)]
    # x_1 and x_12_L have the prefix x_1, but 2_L is no suffix: those that start with a separator come first.
    common.sort(key=lambda suffix: (suffix.image or suffix.label)[:1].isalnum())
    paired = {s: _pairs(images[:_MAX_PAIRED], labels, s) for s in common}
    best = max(paired.values(), default=0)
    return [s for s, count in paired.items() if count and 2 * count > best][:_MAX_HINTS]


def _pairs(images: Sequence[ImageName], labels: Sequence[LabelFile], suffix: Suffix) -> int:
    try:
        return len(pair(images, labels, suffix).labels)
    except SpecError:
        return 0
