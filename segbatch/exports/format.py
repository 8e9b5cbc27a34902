"""The protocol of export formats: what a format receives for each image, where it writes, what it declares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

import numpy as np

from segbatch.labels import LabelSet
from segbatch.records import ClassCount

Images = Literal["none", "copy", "link"]
MAX_IMAGES_PER_FILE = 10_000


@dataclass(frozen=True)
class ExportedImage:
    """One image of an export.

    Attributes:
        number: 1 for the first image of the export, 2 for the next; the same in every attempt.
        name: Safe relative path without an extension: segments of ``A-Z a-z 0-9 . _ - % ~`` and ``/`` between them;
            unique in the export, also without regard to case.
        image_id: Its id in the output: untrusted text.
        mask: Class ids of ``ExportContext.labels`` and ``ExportContext.void``, (H, W), uint8, or uint16 for more than
            255 classes; read-only.
        classes: The classes in the mask, most pixels first; ignored pixels are in none.
        confidence: Mean over the pixels of the network's probability of their class, before any selection.
        image: The encoded photograph, upright and without an EXIF orientation; None with ``--images none``, or if it
            is not available.
        image_file: Path below the target at which the photograph is or will be, with its extension; None without
            ``image``. For a format without ``image_folder`` it is ``name`` with the extension.
    """

    number: int
    name: str
    image_id: str
    mask: np.ndarray
    classes: tuple[ClassCount, ...]
    confidence: float | None
    image: bytes | None = None
    image_file: str | None = None

    @property
    def file_name(self) -> str:
        """What an annotation calls the photograph: its file in the export, else the id, which names the original."""
        return self.image_file or self.image_id


@dataclass(frozen=True)
class ExportContext:
    """What all parts of one export have in common. Picklable.

    Attributes:
        labels: The classes after selection and merging; class ids are 0 up to their number.
        images: Whether photographs are exported.
        split: Name of the split, such as ``train``: a safe segment of a path.
        instances: Whether an annotation is one connected component, instead of a class in an image.
        total: Number of images of the export.
        background: Id of the class that is the background, if there is one.
        void: Value of ignored pixels in the masks: 255, or 65,535 for more than 255 classes.
        source: URI of the output, redacted.
        target: URI of the export, redacted.
        fingerprint: Of the job that computed the masks.
        model: Name of its network, for provenance.
        image_root: Folder or URL below which annotation tools find the photographs; "" for the default of a format.
    """

    labels: LabelSet
    images: Images
    split: str
    instances: bool
    total: int
    background: int | None
    void: int
    source: str
    target: str
    fingerprint: str
    model: str = ""
    image_root: str = ""


class PartFolder(Protocol):
    """Where a format writes one part. Every file appears whole, and replaces the one of an earlier attempt.

    Attributes:
        name: Five digits or more, by which files that belong to the part alone are named: its position among the
            files of the output, in order of their names.
    """

    name: str

    def write(self, path: str, data: bytes) -> None:
        """Write a file, by its path below the target."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Write a file that may be larger than memory; it appears when the block ends without an exception."""
        ...

    def fragment(self) -> AbstractContextManager[BinaryIO]:
        """Write what ``Format.finish`` needs of this part: one line per image, by convention, ended by a newline."""
        ...


class ExportFolder(Protocol):
    """Where a format writes what belongs to no single part, after all parts."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file, by its path below the target."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Write a file that may be larger than memory; it appears when the block ends without an exception."""
        ...

    def lines(self) -> Iterator[bytes]:
        """Read the lines of the fragments of all parts, in order of the image numbers, without their newlines."""
        ...


class Format(Protocol):
    """An export format: one object, registered in ``segbatch.exports.EXPORTS``. Picklable, without state.

    Parts are written in any order, on any machine, perhaps twice at the same time: a part must depend on its images
    and the context alone, and name its files by ``ExportedImage.name`` or ``PartFolder.name``.

    Attributes:
        name: What ``--to`` takes.
        max_classes: Number of classes that it can hold; exports with more are refused before any work.
        default_images: What ``--images`` is unless given.
        needs_images: Whether its readers find nothing without the photographs: ``--images none`` is refused, and an
            image whose photograph is not available is left out, counted and named.
        image_folder: Path below the target to which the engine writes the photographs; may contain ``{split}``. None
            for a format that writes ``ExportedImage.image`` into its own files.
        reserved_folders: Names of folders that its readers replace in the path of an image, to find the mask: none of
            ``ExportedImage.name`` has one.
        has_instances: Whether ``--instances`` means something.
        has_image_urls: Whether ``--image-root`` means something.
    """

    name: str
    max_classes: int
    default_images: Images
    needs_images: bool
    image_folder: str | None
    reserved_folders: frozenset[str]
    has_instances: bool
    has_image_urls: bool

    def check(self, context: ExportContext) -> None:
        """Raise ``SpecError`` if the format cannot hold these classes or options, before any work."""
        ...

    def write_part(self, images: Iterator[ExportedImage], part: PartFolder, context: ExportContext) -> None:
        """Write the masks of one part, one image at a time. Also called for a part without images."""
        ...

    def finish(self, folder: ExportFolder, context: ExportContext) -> None:
        """Write what belongs to all images, once all parts are complete; idempotent."""
        ...

    def usage(self, context: ExportContext) -> str:
        """Return one line on how ``context.target`` is loaded, for the end of the command."""
        ...


@dataclass(frozen=True)
class PartCounts:
    """What one part holds.

    Attributes:
        images: Exported images.
        errors: Error rows, which no export holds.
        linked: Photographs that are links.
        turned: Photographs that were written upright, because of their EXIF orientation.
        missing: Photographs that are not available.
        problem: Why the first of them is not.
        left_out: Images that are not exported, because the format needs a photograph that is not available.
        voided: Classes of an image whose pixels are ignored, because their confidence is low.
        small: Areas that were removed, because they are small.
    """

    images: int = 0
    errors: int = 0
    linked: int = 0
    turned: int = 0
    missing: int = 0
    problem: str = ""
    left_out: int = 0
    voided: int = 0
    small: int = 0

    def plus(self, other: PartCounts) -> PartCounts:
        """Return the sums."""
        sums = {name: value + vars(other)[name] for name, value in vars(self).items() if name != "problem"}
        return PartCounts(**sums, problem=self.problem or other.problem)
