"""Class names, colors, the ignore index, and the options by which label images are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segbatch.errors import SpecError
from segbatch.text import CONTROL_CHARACTERS, escape_control_characters

IGNORE_INDEX = 255
# Label value of a pixel whose color is in no table: this minus the color, 0xRRGGBB.
UNKNOWN_COLOR = -(2**32)
# Help texts of the label options of eval, train and tune-crf.
LABEL_SUFFIX = (
    "suffix of the names of labels, such as _mask; IMAGE=LABEL if names of images have a suffix too, such as "
    "_leftImg8bit=_gtFine_labelIds"
)
LABEL_COLORS = (
    "colors of labels: classes for those of the classes, or a table (name,r,g,b; labelmap.txt; JSON); indices to read "
    "the values of palette images and ignore their palettes"
)
CLASSES, INDICES = "classes", "indices"  # values of label_colors that are not a table
REDUCE_ZERO = "ignore label value 0 and read value v as class v - 1, as in ADE20K"
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
        """Return a label set; colors default to the PASCAL VOC color map. Raises ``SpecError`` for invalid ones."""
        if len(set(names)) != len(names):
            repeated = sorted({n for n in names if list(names).count(n) > 1})
            raise SpecError(f"class names must differ; given twice: {', '.join(repeated)}")
        if not names:
            raise SpecError("a model needs at least one class; the list of classes is empty")
        for name in names:
            if CONTROL_CHARACTERS.search(name) or not 0 < len(name) <= _MAX_NAME_LENGTH:
                shown = escape_control_characters(name[:_MAX_NAME_LENGTH])
                raise SpecError(
                    f"class name {shown!r}: a name has 1 to {_MAX_NAME_LENGTH} characters, "
                    "none of which is a line break or a control character; change it in the list of classes"
                )
        chosen = voc_color_map(len(names)) if colors is None else colors
        if len(chosen) != len(names):
            raise SpecError(f"{len(names)} class names but {len(chosen)} colors; give one color per class")
        if any(len(c) != 3 or not all(0 <= int(v) <= 255 for v in c) for c in chosen):
            raise SpecError("a color is three integers from 0 to 255: red, green, blue")
        return LabelSet(tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in chosen))

    def __len__(self) -> int:
        return len(self.names)

    def palette(self) -> bytes:
        """Return the 768 bytes of a PNG palette: the classes' colors, then the VOC color map.

        Entry 255 is VOC's near-white for ignored pixels.
        """
        colors = voc_color_map(256)
        colors[: min(len(self), 256)] = self.colors[:256]
        return bytes(value for color in colors for value in color)


def voc_color_map(n: int) -> list[tuple[int, ...]]:
    """Return the first n colors of the PASCAL VOC color map: bits of the class id spread over those of R, G and B."""
    return [
        tuple(sum((class_id >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))
        for class_id in range(n)
    ]


VOC_LABELS = LabelSet.of(VOC)
CAMVID_LABELS = LabelSet.of(CAMVID, CAMVID_COLORS)


@dataclass(frozen=True)
class LabelOptions:
    """How label images are paired with images and read: the label options of ``eval``, ``train`` and ``tune-crf``.

    Attributes:
        ignore: Label values of ignored pixels.
        mapping: See ``evaluation.class_map.ClassMap``.
        suffix: Suffix of the names of labels, as ``_mask``; or ``IMAGE=LABEL`` if names of images have one too, as
            ``_leftImg8bit=_gtFine_labelIds``.
        colors: ``classes`` for labels in the classes' colors, the URI of a table of names and colors, or ``indices`` to
            read the values of palette images whose palettes show other classes.
        reduce_zero: Whether value 0 is ignored and value v is class v - 1, as in ADE20K.
    """

    ignore: tuple[int, ...] = (IGNORE_INDEX,)
    mapping: Mapping[Any, Any] | None = None
    suffix: str = ""
    colors: str | None = None
    reduce_zero: bool = False

    @property
    def checks_palettes(self) -> bool:
        """Whether labels are refused whose palettes show other classes than their values."""
        return self.colors != INDICES
