"""Contact sheets: images and their masks side by side, with a legend or a table of classes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segbatch.codecs.overlay import overlay
from segbatch.labels import LabelSet
from segbatch.records import ClassCount
from segbatch.text import escape_control_characters, share_text

_WIDTH, _GAP, _HEAD, _LINE = 320, 12, 34, 26
_INK, _PAPER, _FAINT, _BAR = (32, 32, 32), (255, 255, 255), (225, 225, 225), (80, 120, 180)
_FONT_SIZE = 16
_SWATCH, _BAR_WIDTH = 18, 90
_MAX_CLASSES, _MAX_NAME_WIDTH, _MAX_TEXT = 40, 260, 200
# Pillow's own font is Latin. Of the others, those that the machine has are used for the names that need them.
_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "Arial Unicode.ttf")
_NO_CHARACTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Row:
    """A row of the sheet.

    Attributes:
        image: uint8 (H, W, 3).
        masks: Class ids (H, W), one for each column after the first.
    """

    title: str
    image: np.ndarray
    masks: tuple[np.ndarray, ...]


def contact_sheet(
    rows: Sequence[Row],
    columns: Sequence[str],
    labels: LabelSet,
    *,
    width: int = _WIDTH,
    title: Sequence[str] = (),
    counts: Sequence[ClassCount] | None = None,
) -> Image.Image:
    """Return the rows as one image, masks drawn over the images in the colors of their classes.

    Args:
        columns: Headings, the first one that of the images.
        width: Pixels of a column.
        title: Lines above the sheet.
        counts: Classes to list beside the rows with pixels, share and confidence; by default the names of all classes
            in the masks.
    """
    thumbs = [[_scaled(cell, width) for cell in cells(row, labels)] for row in rows]
    legend = _legend(rows, labels) if counts is None else _table(counts, labels)
    head = _HEAD + _LINE * len(title)
    body = sum(row[0].height + _GAP for row in thumbs)
    grid = _GAP + len(columns) * (width + _GAP)
    title = [_drawable(line) for line in title]
    title_width = max((int(_font(line).getlength(line)) for line in title), default=0)
    size = (max(grid + legend.width, title_width + _GAP) + _GAP, head + max(body, legend.height) + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        _text(draw, (_GAP, 8 + _LINE * number), line)
    for x, name in enumerate(columns):
        _text(draw, (_GAP + x * (width + _GAP), head - _LINE), name)
    y = head
    for row in thumbs:
        for x, cell in enumerate(row):
            sheet.paste(cell, (_GAP + x * (width + _GAP), y))
        y += row[0].height + _GAP
    sheet.paste(legend, (grid, head if counts is None else head - _LINE))
    return sheet


def cells(row: Row, labels: LabelSet) -> list[Image.Image]:
    """Return the image of a row, and each mask over it."""
    return [Image.fromarray(row.image), *(overlay(row.image, mask, labels) for mask in row.masks)]


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return images of one height as one, without text: for terminals."""
    strip = Image.new("RGB", (sum(i.width + _GAP for i in images) - _GAP, max(i.height for i in images)), _PAPER)
    x = 0
    for image in images:
        strip.paste(image, (x, 0))
        x += image.width + _GAP
    return strip


def _scaled(cell: Image.Image, width: int) -> Image.Image:
    return cell if cell.width == width else cell.resize((width, max(1, round(cell.height * width / cell.width))))


def _legend(rows: Sequence[Row], labels: LabelSet) -> Image.Image:
    """Draw the name of each class in the masks."""
    present = sorted({int(i) for r in rows for m in r.masks for i in np.unique(m)})
    names = [_name(labels, i) for i in present]
    width = 30 + max((int(_font(n).getlength(n)) for n in names), default=0)
    image = Image.new("RGB", (width, _LINE * len(present)), _PAPER)
    draw = ImageDraw.Draw(image)
    for k, (class_id, name) in enumerate(zip(present, names, strict=True)):
        _swatch(draw, _LINE * k, labels.colors[class_id])
        _text(draw, (26, _LINE * k), name)
    return image


def _table(counts: Sequence[ClassCount], labels: LabelSet) -> Image.Image:
    """Draw a table of classes: name, pixels, share, and confidence as a bar and a number."""
    shown = counts[:_MAX_CLASSES]
    names = [_fitted(_name(labels, count.class_id)) for count in shown]
    pixels = [f"{count.pixels:,}" for count in shown]
    left = 26 + max((int(_font(n).getlength(n)) for n in ("class", *names)), default=0) + 2 * _GAP
    ends = [left + max(int(_font(p).getlength(p)) for p in ("pixels", *pixels))]
    ends += [ends[0] + 2 * _GAP + 60, ends[0] + 4 * _GAP + 60 + _BAR_WIDTH + 50]
    lines = 1 + len(shown) + (len(counts) > len(shown))
    image = Image.new("RGB", (ends[-1] + 1, _LINE * lines), _PAPER)
    draw = ImageDraw.Draw(image)
    _text(draw, (26, 0), "class")
    for end, heading in zip(ends, ("pixels", "share", "confidence"), strict=True):
        _text(draw, (end, 0), heading, "ra")
    for line, (count, name) in enumerate(zip(shown, names, strict=True), 1):
        y, bar = _LINE * line, ends[-1] - 50 - _BAR_WIDTH
        _swatch(draw, y, labels.colors[count.class_id])
        _text(draw, (26, y), name)
        _text(draw, (ends[0], y), pixels[line - 1], "ra")
        _text(draw, (ends[1], y), share_text(count.fraction), "ra")
        draw.rectangle((bar, y + 3, bar + _BAR_WIDTH, y + 15), _FAINT)
        if count.confidence > 0:
            draw.rectangle((bar, y + 3, bar + round(_BAR_WIDTH * min(1.0, count.confidence)), y + 15), _BAR)
        _text(draw, (ends[2], y), f"{count.confidence:.3f}", "ra")
    if len(counts) > len(shown):
        _text(draw, (26, _LINE * (lines - 1)), f"and {len(counts) - len(shown)} more")
    return image


def _swatch(draw: ImageDraw.ImageDraw, y: int, color: tuple[int, int, int]) -> None:
    draw.rectangle((0, y, _SWATCH, y + _SWATCH), color, _INK)


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, anchor: str = "la") -> None:
    draw.text(at, text, _INK, _font(text), anchor=anchor)


def _drawable(text: str) -> str:
    """Return a text without control characters; if no font has all of its characters, with their escapes."""
    text = escape_control_characters(text)[:_MAX_TEXT]
    return text if _covers(_font(text), text) else text.encode("ascii", "backslashreplace").decode()


def _name(labels: LabelSet, class_id: int) -> str:
    """Return the name of a class, or its id if no font has all characters of the name."""
    name = labels.names[class_id]
    return name if _covers(_font(name), name) else f"class {class_id}"


def _fitted(name: str) -> str:
    """Shorten a name to the width of its column."""
    short = name
    while short and _font(short).getlength(short) > _MAX_NAME_WIDTH:
        short = short[:-1]
    return name if short == name else f"{short[:-1]}…"


def _font(text: str) -> Font:
    """Return the first font with all characters of a text, or Pillow's own."""
    fonts = _fonts()
    return next((font for font in fonts if _covers(font, text)), fonts[0])


@functools.cache
def _fonts() -> list[Font]:
    fonts: list[Font] = [ImageFont.load_default(_FONT_SIZE)]
    for name in _FONTS:
        try:
            fonts.append(ImageFont.truetype(name, _FONT_SIZE))
        except OSError:  # is not installed
            continue
    return fonts


def _covers(font: Font, text: str) -> bool:
    """Whether a font has a glyph for each character: a missing one is drawn like that of no character."""
    if text.isascii():
        return True
    missing = bytes(font.getmask(_NO_CHARACTER))
    return all(c.isspace() or bytes(font.getmask(c)) != missing for c in set(text) if not c.isascii())
