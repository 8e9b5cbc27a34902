"""The orientation that decoding applies, without decoding."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from segbatch.codecs.decode import decode, orientation_of
from tests.corpus import photograph


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_it_is_that_of_the_metadata(format: str, orientation: int) -> None:
    image, exif, buffer = Image.fromarray(photograph(0, 48)[:32]), Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, format, exif=exif)
    assert orientation_of(buffer.getvalue()) == orientation
    assert decode(buffer.getvalue(), 10**6).shape[:2] == ((48, 32) if orientation in (6, 8) else (32, 48))


def test_what_is_no_image_or_damaged_has_none() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    for data in (b"", b"<html>", buffer.getvalue()[:20], b"\xff\xd8\xff", b"II*\0\xff\xff\xff\xff"):
        assert orientation_of(data) == 1
