"""Contact sheets: images and their masks side by side, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segbatch.codecs.overlay import overlay
from segbatch.labels import LabelSet

_WIDTH, _GAP, _HEAD = 320, 12, 34
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


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


def contact_sheet(rows: Sequence[Row], columns: Sequence[str], labels: LabelSet) -> Image.Image:
    """Return the rows as one image, masks drawn over the images in the colors of their classes.

    Args:
        columns: Headings, the first one that of the images.
    """
    cells = [[Image.fromarray(r.image), *(overlay(r.image, m, labels) for m in r.masks)] for r in rows]
    thumbs = [[c.resize((_WIDTH, max(1, round(c.height * _WIDTH / c.width)))) for c in row] for row in cells]
    present = sorted({int(i) for r in rows for m in r.masks for i in np.unique(m)})
    font = ImageFont.load_default(16)
    names = [labels.names[i] for i in present]
    legend_width = 30 + max((int(font.getlength(n)) for n in names), default=0)
    body = sum(row[0].height + _GAP for row in thumbs)
    legend_height = 26 * len(present)
    grid = len(columns) * (_WIDTH + _GAP)
    sheet = Image.new("RGB", (_GAP + grid + legend_width + _GAP, _HEAD + max(body, legend_height) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, name in enumerate(columns):
        draw.text((_GAP + x * (_WIDTH + _GAP), 8), name, _INK, font)
    y = _HEAD
    for row in thumbs:
        for x, cell in enumerate(row):
            sheet.paste(cell, (_GAP + x * (_WIDTH + _GAP), y))
        y += row[0].height + _GAP
    for k, class_id in enumerate(present):
        top = _HEAD + 26 * k
        draw.rectangle((_GAP + grid, top, _GAP + grid + 18, top + 18), labels.colors[class_id], _INK)
        draw.text((_GAP + grid + 26, top), labels.names[class_id], _INK, font)
    return sheet
