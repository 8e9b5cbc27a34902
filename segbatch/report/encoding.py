"""Images and masks as data URIs of a page, small enough for hundreds of them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from segbatch.codecs.overlay import boundaries
from segbatch.labels import LabelSet

_OUTLINE = (255, 255, 255, 254)  # page.js knows an outline by its alpha


def background_of(labels: LabelSet) -> int | None:
    """Return the id of the class that is called background, which pages leave uncolored; None without one."""
    names = [name.casefold().strip("_ ") for name in labels.names]
    return names.index("background") if "background" in names else None


def mask_uri(mask: np.ndarray, height: int, width: int, labels: LabelSet) -> str:
    """Encode class ids (H, W) as a lossless WebP of ``height`` and ``width`` in the colors of the classes.

    The background is transparent, and the boundaries between classes are white, so that no class is told by its color
    alone.
    """
    ids = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    colors = np.zeros((max(256, len(labels)), 4), np.uint8)
    colors[: len(labels), :3], colors[:, 3] = labels.colors, 255
    if (background := background_of(labels)) is not None:
        colors[background, 3] = 0
    pixels = colors[ids]
    pixels[boundaries(ids)] = _OUTLINE
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=50, method=2)
    return data_uri(buffer.getvalue())


def data_uri(data: bytes) -> str:
    """Return an encoded JPEG or WebP as a data URI."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
