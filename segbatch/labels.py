"""Class names, colors and the ignore index; how label images are to be understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbatch.errors import SpecError
from segbatch.text import CONTROL_CHARACTERS, escape_control_characters

IGNORE_INDEX = 255
# Label values of pixels of a color that no table names: this minus the color, 0xRRGGBB.
UNKNOWN_COLOR = -(2**32)
# What the label options of eval, train and tune-crf say in their help.
LABEL_SUFFIX = (
    "what names of labels have at their end, as _mask; IMAGE=LABEL if those of images have something too, as "
    "_leftImg8bit=_gtFine_labelIds"
)
LABEL_COLORS = (
    "labels are drawn in colors: classes for those of the classes, or a table (name,r,g,b; labelmap.txt; JSON); "
    "indices to believe the values of palette images whatever their colors"
)
CLASSES, INDICES = "classes", "indices"  # what label_colors may be besides a table
REDUCE_ZERO = "label value 0 is ignored and value v is class v - 1, as in ADE20K"
_MAX_NAME_LENGTH = 100

VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
CAMVID = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()
CAMVID_COLORS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


@dataclass(frozen=True)
class LabelSet:
    """Names of the classes, in order of their ids, and a color (R, G, B) for each."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    @staticmethod
    def of(names: Sequence[str], colors: Sequence[Sequence[int]] | None = None) -> LabelSet:
        """A label set; colors default to the PASCAL VOC color map."""
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if list(names).count(n) > 1})
            raise SpecError(f"class names must differ; given twice: {', '.join(twice)}")
        if not names:
            raise SpecError("a model needs at least one class; the list of classes is empty")
        for name in names:
            if CONTROL_CHARACTERS.search(name) or not 0 < len(name) <= _MAX_NAME_LENGTH:
                shown = escape_control_characters(name[:_MAX_NAME_LENGTH])
                raise SpecError(
                    f"class name {shown!r}: a name has 1 to {_MAX_NAME_LENGTH} characters, "
                    "none of which is a line break or a control character; change it in the list of classes"
                )
        chosen = voc_color_map(len(names)).tolist() if colors is None else colors
        if len(chosen) != len(names):
            raise SpecError(f"{len(names)} class names but {len(chosen)} colors; give one color a class")
        if any(len(c) != 3 or not all(0 <= int(v) <= 255 for v in c) for c in chosen):
            raise SpecError("a color is three whole numbers from 0 to 255: red, green, blue")
        return LabelSet(tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in chosen))

    def __len__(self) -> int:
        return len(self.names)

    def palette(self) -> bytes:
        """768 bytes for a palette PNG: the classes' colors, then the rest of the VOC color map.

        The last entry, 255, is VOC's near-white for ignored pixels.
        """
        colors = voc_color_map(256)
        colors[: min(len(self), 256)] = self.colors[:256]
        return colors.tobytes()


def voc_color_map(n: int) -> np.ndarray:
    """The PASCAL VOC color map, uint8 (n, 3): bits of the class id spread over the bits of R, G and B."""
    ids = np.arange(n)
    colors = np.zeros((n, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


VOC_LABELS = LabelSet.of(VOC)
CAMVID_LABELS = LabelSet.of(CAMVID, CAMVID_COLORS)


@dataclass(frozen=True)
class LabelOptions:
    """How label images are paired with images and read: the label options of ``eval``, ``train`` and ``tune-crf``.

    ``ignore`` are label values that do not count, ``mapping`` is that of ``evaluation.class_map.ClassMap``.
    ``suffix`` is what the names of labels end in and those of images do not, as ``_mask``; or ``IMAGE=LABEL`` where
    both end in something of their own, as ``_leftImg8bit=_gtFine_labelIds``. ``colors`` is ``classes`` for labels drawn
    in the classes' colors, the URI of a table of names and colors, or ``indices`` to believe the values of palette
    images whose palettes name other classes. ``reduce_zero``: 0 is ignored and value v stands for class v - 1 (ADE20K).
    """

    ignore: tuple[int, ...] = (IGNORE_INDEX,)
    mapping: Mapping[Any, Any] | None = None
    suffix: str = ""
    colors: str | None = None
    reduce_zero: bool = False

    @property
    def checks_palettes(self) -> bool:
        """Whether the palettes of labels must not show other classes than their values."""
        return self.colors != INDICES
