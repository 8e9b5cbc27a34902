"""Files that are no pictures, or parts of pictures: each says what it is, and none is shown in part."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from segbatch.codecs.decode import decode, image_size
from segbatch.errors import RecordFailure
from tests.corpus import bad_records, encode, photograph, png_file

PHOTO = photograph(1, 64)
HEIGHT, WIDTH = PHOTO.shape[:2]
LIMIT = 100_000_000
# Rows and columns of the passes of an interlaced PNG of 8 x 8.
PASSES = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8))


@pytest.mark.parametrize("kind", sorted(bad_records()))
def test_bad_pictures_say_what_is_wrong(kind: str):
    bad = bad_records()[kind]
    with pytest.raises(RecordFailure) as caught:
        decode(bad.data, LIMIT)
    assert (caught.value.stage, caught.value.type) == (bad.stage, bad.type)
    assert 15 < len(caught.value.message) < 400


def test_messages_name_what_was_met():
    def said(kind: str) -> str:
        with pytest.raises(RecordFailure) as caught:
            decode(bad_records()[kind].data, LIMIT)
        return caught.value.message

    assert "looks like an HTML page" in said("page.jpg")
    assert "looks like an SVG drawing" in said("drawing.svg.png")
    assert "looks like a PDF document" in said("document.jpg")
    assert "looks like a JPEG XL image" in said("telephone.jpg")
    assert "looks like a Git LFS pointer" in said("pointer.jpg")
    assert "looks like text" in said("notes.jpg")
    assert "60000 x 60000 is 3,600,000,000 pixels" in said("bomb.png")
    assert "0 bytes" in said("empty.jpg")
    assert "breaks off" in said("cut.jpg")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_cut_picture_is_never_shown_in_part(format: str):
    data = encode(photograph(2, 32), format)
    whole = decode(data, LIMIT)
    for end in range(0, len(data), 7):
        try:
            pixels = decode(data[:end], LIMIT)
        except RecordFailure:
            continue
        assert np.array_equal(pixels, whole), end


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_data_ends_before_its_rows(interlaced: bool):
    """Pillow leaves the rows that lack black, of an interlaced PNG if a pass ends there."""
    raw = b"".join((b"\0" + b"\7" * 3 * w) * h for h, w in (PASSES if interlaced else [(8, 8)]))
    assert (decode(png_file(8, 8, idat=zlib.compress(raw), interlaced=interlaced), LIMIT) == 7).all()
    for end in range(0, len(raw), 1 if interlaced else 25):
        with pytest.raises(RecordFailure, match="the PNG breaks off"):
            decode(png_file(8, 8, idat=zlib.compress(raw[:end]), interlaced=interlaced), LIMIT)


def test_a_black_png_is_whole():
    assert not decode(png_file(8, 8, idat=zlib.compress(bytes(8 * 25))), LIMIT).any()
    assert not decode(png_file(8, 8, idat=zlib.compress(bytes(500)), interlaced=True), LIMIT).any()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])  # libtiff writes to stderr
def test_changed_bytes_give_a_picture_or_a_record_failure(format: str):
    rng = np.random.default_rng(5)
    data = encode(photograph(3, 32), format)
    for _ in range(150):
        changed = bytearray(data)
        for at in rng.integers(0, rng.choice([60, len(data)]), 2):
            changed[at] = rng.integers(256)
        try:
            pixels = decode(bytes(changed), 10**6)
        except RecordFailure:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[0] * pixels.shape[1] <= 10**6


def test_bytes_after_the_end_do_not_matter():
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        data = encode(PHOTO, format)
        assert np.array_equal(decode(data + b"trailing \xff\xd9 bytes", LIMIT), decode(data, LIMIT)), format


def test_a_thumbnail_does_not_stand_for_a_picture_that_is_cut():
    thumbnail = encode(photograph(1, 32), "JPEG")
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = encode(PHOTO, "JPEG")
    data = data[:2] + exif + data[2:]
    assert image_size(data) == (HEIGHT, WIDTH)
    assert decode(data, LIMIT).shape == PHOTO.shape
    with pytest.raises(RecordFailure, match="no end marker"):
        decode(data[:-40], LIMIT)
