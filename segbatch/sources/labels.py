"""Label images: listed once, paired with the corpus by file name, read as label values."""

from __future__ import annotations

import io
import struct
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from segbatch.addresses import join
from segbatch.errors import RecordFailure, SpecError
from segbatch.sources.io import Files, shown_uri
from segbatch.sources.listing import list_input
from segbatch.text import without_query

_LARGEST = 2**30
# Formats that keep values as they are; a JPEG of class ids holds ids that nobody drew.
_FORMATS = ("PNG", "TIFF", "BMP", "GIF")


def stem(name: str) -> str:
    """What an image and its label share: the file name without folders and extension."""
    return PurePosixPath(name).stem


def list_labels(files: Files, labels: str) -> dict[str, str]:
    """URIs of the labels in a folder, prefix or glob, by ``stem``, in order of their names.

    Raises ``SpecError`` if there are none, or two of one name; ``SourceError`` if they cannot be listed.
    """
    found: dict[str, str] = {}
    for listed in list_input(files, labels):
        for entry in listed.entries:
            name = stem(without_query(join(listed.root, entry.name)))
            if name in found:
                raise SpecError(
                    f"labels: {shown_uri(labels)} holds two files named {name!r}; name one folder of labels"
                )
            found[name] = join(listed.root, entry.name)
    if not found:
        raise SpecError(f"labels: {shown_uri(labels)} holds no files")
    return found


def read_label(files: Files, uri: str) -> np.ndarray:
    """Label values int64 (H, W) of a palette or grey image. Raises ``SpecError`` if it cannot be read or is neither."""
    try:
        data = files.read(uri, _LARGEST)
    except (RecordFailure, OSError) as e:
        raise SpecError(f"labels: {shown_uri(uri)} cannot be read: {e}") from e
    return label_values(data, shown_uri(uri))


def label_values(data: bytes, name: str) -> np.ndarray:
    """The same of an encoded label image that was read from ``name``."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as e:
        reason = "it is no PNG, TIFF, BMP or GIF" if isinstance(e, Image.UnidentifiedImageError) else str(e)
        raise SpecError(f"labels: {name} cannot be read: {reason}") from e
    if values.ndim != 2 or values.dtype.kind not in "uib":
        raise SpecError(
            f"labels: {name} is no image of class ids (mode {mode}); give palette or grey PNGs whose "
            "values are class ids"
        )
    return values.astype(np.int64)
