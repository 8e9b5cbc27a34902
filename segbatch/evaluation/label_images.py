"""Label images: listed once, read as label values or by their colors."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from segbatch.class_list import FORMS, parse_class_list
from segbatch.contents import looks_like, recognized
from segbatch.errors import RecordFailure, SpecError
from segbatch.evaluation.class_map import ClassMap
from segbatch.labels import CLASSES, IGNORE_INDEX, INDICES, UNKNOWN_COLOR, LabelOptions, LabelSet
from segbatch.sources.images import IMAGE_EXTENSIONS
from segbatch.storage.files import Files
from segbatch.storage.listing import list_input
from segbatch.storage.uri import join
from segbatch.text import counted, redact, without_query

_MAX_LABEL_BYTES = 2**30
_MAX_TABLE_BYTES = 2**20
# Lossless formats; a JPEG does not preserve class ids.
_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_COLOR_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA")


@dataclass(frozen=True)
class LabelFile:
    """A label image: its path below the given folder, and its URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class Label:
    """Label values int64 (H, W), and the palette uint8 (N, 3) of a palette image, else None."""

    values: np.ndarray
    palette: np.ndarray | None = None


def list_labels(files: Files, labels: str) -> list[LabelFile]:
    """Return the label images in a folder, prefix or glob, in order of their names.

    Files of other kinds are skipped.

    Raises:
        SpecError: There are none.
        SourceError: They cannot be listed.
    """
    entries = [(listed.root, entry) for listed in list_input(files, labels) for entry in listed.entries]
    images = [
        LabelFile(without_query(entry.name), join(root, entry.name)) for root, entry in entries if is_image(entry.name)
    ]
    if not images:
        held = f"{counted(len(entries), 'file')} such as {entries[0][1].name!r}" if entries else "no files"
        raise SpecError(f"labels: {redact(labels)} holds no images, only {held}; give a folder of label images")
    return sorted(images, key=lambda label: label.name)


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name."""
    return without_query(name).lower().endswith(IMAGE_EXTENSIONS)


def color_table(colors: str | None, labels: LabelSet, files: Files) -> LabelSet | None:
    """Return the names and colors in which labels are drawn; None if their values are ids.

    Args:
        colors: The option ``label_colors``: ``classes`` for the colors of ``labels``, ``indices`` or None for ids, or
            the URI of a list of classes with colors, see ``class_list``.

    Raises:
        SpecError: The list has no colors, or one color for two names.
    """
    if colors is None or colors == INDICES:
        return None
    if colors == CLASSES:
        table = labels
    else:
        try:
            text = files.read(colors, _MAX_TABLE_BYTES).decode("utf-8-sig")
        except (RecordFailure, OSError, UnicodeDecodeError) as e:
            raise SpecError(f"label_colors: {redact(colors)} cannot be read: {e}; give {FORMS}") from e
        listed = parse_class_list(text, redact(colors), needs_ids=False)
        if listed.colors is None:
            raise SpecError(
                f"label_colors: {redact(colors)} names {len(listed.names)} classes and no colors; give a table with "
                "the columns name,r,g,b"
            )
        table = listed.label_set()
    first: dict[tuple[int, int, int], str] = {}
    for name, color in zip(table.names, table.colors, strict=True):
        if first.setdefault(color, name) != name:
            raise SpecError(f"label_colors: {first[color]!r} and {name!r} have one color, {color}; give each its own")
    return table


class LabelReader:
    """Reads label images: their values, or with a table of ``colors`` the index of each pixel's color.

    A pixel whose color is not in the table has a value of ``UNKNOWN_COLOR`` or below; with PASCAL VOC's color of
    ignored pixels, 255. Picklable.
    """

    def __init__(self, files: Files, colors: LabelSet | None = None) -> None:
        self.files, self._colors = files, colors

    def read(self, uri: str) -> Label:
        """Return the label at ``uri``. Raises ``SpecError`` if it cannot be read, or contains no class ids."""
        try:
            data = self.files.read(uri, _MAX_LABEL_BYTES)
        except (RecordFailure, OSError) as e:
            raise SpecError(f"labels: {redact(uri)} cannot be read: {e}") from e
        return self.decode(data, redact(uri))

    def decode(self, data: bytes, name: str) -> Label:
        """Return an encoded label that was read from ``name``. Raises ``SpecError``."""
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                mode = image.mode
                if self._colors is not None and mode in _COLOR_MODES:
                    return Label(_by_color(np.asarray(image.convert("RGB")), self._colors))
                palette = image.getpalette("RGB") if mode == "P" else None
                values = np.asarray(image)
        except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as e:
            reason = str(e)
            if isinstance(e, Image.UnidentifiedImageError):
                is_jpeg = data[:3] == b"\xff\xd8\xff"
                kind = "a JPEG, which does not keep values" if is_jpeg else recognized(data) or looks_like(data)
                reason = f"it is not a PNG, TIFF, BMP or GIF{f'; it looks like {kind}' if kind else ''}"
            raise SpecError(f"labels: {name} cannot be read: {reason}") from e
        if values.ndim != 2 or values.dtype.kind not in "uib":
            raise SpecError(
                f"labels: {name} is not an image of class ids (mode {mode}); give palette or gray PNGs whose values "
                "are class ids, or --label-colors for labels drawn in colors"
            )
        colors = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
        return Label(values.astype(np.int64), colors)


def open_labels(options: LabelOptions, names: LabelSet, files: Files) -> tuple[LabelReader, ClassMap]:
    """Return the reader of labels and the map of their values to the classes ``names``.

    Raises:
        SpecError: The table of colors or the map does not fit the classes.
    """
    table = color_table(options.colors, names, files)
    return LabelReader(files, table), ClassMap.of(names.names, options, table.names if table else None)


def _by_color(pixels: np.ndarray, table: LabelSet) -> np.ndarray:
    """Indices int64 (H, W) in a table of the colors of ``pixels`` uint8 (H, W, 3)."""
    packed = _packed(pixels)
    colors = _packed(np.array(table.colors, np.uint8))
    ids = np.arange(len(colors))
    ignored = _packed(np.frombuffer(table.palette(), np.uint8).reshape(-1, 3)[IGNORE_INDEX])
    if ignored not in colors and len(colors) <= IGNORE_INDEX:
        colors, ids = np.append(colors, ignored), np.append(ids, IGNORE_INDEX)
    order = np.argsort(colors)
    place = np.minimum(np.searchsorted(colors[order], packed), len(colors) - 1)
    is_known = colors[order][place] == packed
    return np.where(is_known, ids[order][place], UNKNOWN_COLOR - packed)


def _packed(colors: np.ndarray) -> np.ndarray:
    """Colors uint8 (..., 3) as 0xRRGGBB."""
    return colors.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
