"""What a notebook shows of an output: a table of the classes and a few overlays, as HTML without scripts."""

from __future__ import annotations

import base64
import html
import io
import itertools
from typing import TYPE_CHECKING

from PIL import Image

from segbatch.output.stats import ClassRow, class_rows
from segbatch.results.row import MaskRow
from segbatch.text import counted, escape_control_characters

if TYPE_CHECKING:
    from segbatch.results.dataset import MaskDataset
    from segbatch.results.rows import MaskRows

_IMAGES, _SIDE = 8, 160
_MAX_CLASSES, _MAX_NAMES = 10, 4
_MAX_TEXT = 60
# Of all images as base64; with the table, a page of at most 200 kB.
_MAX_IMAGE_BYTES = 160_000
_COLUMNS = ["image_id", "source", "index", "height", "width", "mask", "classes", "error"]


def dataset_html(dataset: MaskDataset) -> str:
    """Return the counts, the most frequent classes and the first overlays of an output."""
    totals = dataset.totals
    state = "" if dataset.is_complete else "; the run is not finished"
    head = f"{counted(totals.records, 'row')}, {counted(totals.failed, 'error')} in {_text(dataset.output.uri)}{state}"
    rows = sorted(class_rows(totals, dataset.classes), key=lambda row: -row.pixels)
    return f"<div><p><b>MaskDataset</b>: {head}</p>{_table(rows)}{_figures(dataset)}</div>"


def rows_html(rows: MaskRows) -> str:
    """Return the number and the first overlays of some rows of an output."""
    head = f"{counted(len(rows), 'row')} selected in {_text(rows.output.uri)}"
    return f"<div><p><b>MaskRows</b>: {head}</p>{_figures(rows)}</div>"


def _table(rows: list[ClassRow]) -> str:
    present = [row for row in rows if row.images]
    lines = []
    for row in present[:_MAX_CLASSES]:
        confidence = "" if row.confidence is None else f"{row.confidence:.3f}"
        cells = [_text(row.name), str(row.class_id), f"{row.images:,}", f"{row.share:.2%}", confidence]
        lines.append(
            "".join(f"<td style='text-align:{'right' if i else 'left'}'>{c}</td>" for i, c in enumerate(cells))
        )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    left_out = len(present) - _MAX_CLASSES
    more = f"<p>and {counted(left_out, 'class')}: <code>class_table()</code> has all</p>" if left_out > 0 else ""
    head = "".join(f"<th>{name}</th>" for name in ("class", "id", "images", "share", "confidence"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _figures(rows: MaskRows) -> str:
    """Return overlays of the first rows with a mask; the mask alone where the image is not available."""
    masks = rows.select(errors=False)
    chosen = list(itertools.islice(masks.read_rows(_COLUMNS), _IMAGES))
    images = {image.row.image_id: image for image in rows.images.read(chosen)}
    parts, size, problem = [], 0, ""
    for row in chosen:
        image = images[row.image_id]
        problem = problem or image.problem
        drawn = row.mask_image() if image.pixels is None else row.overlay(image.pixels)
        data = _jpeg(drawn)
        size += len(data)
        if size > _MAX_IMAGE_BYTES:
            break
        parts.append(_figure(row, data))
    notes = f"<p>first {len(parts)} rows with a mask</p>" if parts else "<p>no row has a mask</p>"
    if problem:
        notes += f"<p>masks alone where the image is not available: {_text(problem, 300)}</p>"
    return notes + "".join(parts)


def _figure(row: MaskRow, data: str) -> str:
    name = _text(row.image_id)
    classes = [_text(row.labels.names[count.class_id]) for count in row.classes]
    shown = ", ".join(classes[:_MAX_NAMES]) + (", …" if len(classes) > _MAX_NAMES else "")
    return (
        f"<figure style='display:inline-block;margin:4px;max-width:{_SIDE}px;vertical-align:top'>"
        f"<img src='data:image/jpeg;base64,{data}' alt='{name}'>"
        f"<figcaption style='overflow-wrap:anywhere;font-size:small'>{name}<br>{shown}</figcaption></figure>"
    )


def _jpeg(image: Image.Image) -> str:
    image.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return base64.b64encode(out.getvalue()).decode()


def _text(text: str, limit: int = _MAX_TEXT) -> str:
    cut = text if len(text) <= limit else f"…{text[1 - limit :]}"
    return html.escape(escape_control_characters(cut))
