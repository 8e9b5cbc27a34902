"""JPEGs are shown whole or not at all, whatever else is in the file."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

from segbatch.codecs.decode import decode, image_size
from segbatch.errors import RecordFailure
from tests.corpus import encode, photograph

PHOTO = photograph(0, 96)
LIMIT = 10**7
END = b"\xff\xd9"
PLAIN = encode(PHOTO, quality=90)
PROGRESSIVE = encode(PHOTO, quality=90, progressive=True)
RESTARTS = encode(PHOTO, quality=90, restart_marker_blocks=3)
GRAY = encode(Image.fromarray(PHOTO).convert("L"), quality=90)
CMYK = encode(Image.fromarray(PHOTO).convert("CMYK"), quality=90)
KINDS = {"plain": PLAIN, "progressive": PROGRESSIVE, "restarts": RESTARTS, "gray": GRAY, "cmyk": CMYK}


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def segment(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(payload) + 2) + payload


def after_start(data: bytes, inserted: bytes) -> bytes:
    return data[:2] + inserted + data[2:]


def sampled(*factors: int) -> bytes:
    """A JPEG of random coefficients whose components are sampled by factors that no encoder at hand writes."""
    data = bytearray(encode(PHOTO[:64, :64], quality=90, subsampling=0))
    at = data.index(b"\xff\xc0")
    for i, factor in enumerate(factors):
        data[at + 11 + 3 * i] = factor
    # The scan had one block of each component in an MCU; more are asked for now, so the image is declared smaller.
    data[at + 5 : at + 9] = struct.pack(">HH", 16, 16)
    return bytes(data)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_those_of_pillow(subsampling: int, progressive: bool):
    for quality in (30, 95):
        data = encode(PHOTO, quality=quality, subsampling=subsampling, progressive=progressive)
        assert np.array_equal(decode(data, LIMIT), by_pillow(data))
    assert np.array_equal(decode(GRAY, LIMIT), by_pillow(GRAY))
    assert np.array_equal(decode(CMYK, LIMIT), by_pillow(CMYK))


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_was_cut_and_closed_is_refused(kind: str):
    data = KINDS[kind]
    first = data.index(b"\xff\xda") + 20
    for end in range(first, len(data) - 8, max(1, (len(data) - first) // 60)):
        cut = data[:end] if data[end - 1] != 0xFF else data[: end - 1]
        with pytest.raises(RecordFailure) as caught:
            decode(cut + END, LIMIT)
        assert caught.value.type in ("TruncatedImage", "CorruptImage"), end


def test_zeros_in_the_middle_are_noticed_in_little_time():
    middle = len(PLAIN) // 2
    with pytest.raises(RecordFailure):
        decode(PLAIN[:middle] + bytes(5_000_000) + PLAIN[middle:], LIMIT)


def test_scans_that_are_missing_are_noticed():
    scans = [m.start() for m in re.finditer(rb"\xff\xda", PROGRESSIVE)]
    assert len(scans) > 5
    for begin, end in zip(scans[1:], [*scans[2:], len(PROGRESSIVE) - 2], strict=True):
        with pytest.raises(RecordFailure):
            decode(PROGRESSIVE[:begin] + END, LIMIT)
        with pytest.raises(RecordFailure):  # one of them, in the middle
            decode(PROGRESSIVE[:begin] + PROGRESSIVE[end:], LIMIT)


def test_restart_segments_that_are_missing_are_noticed():
    markers = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", RESTARTS)]
    assert len(markers) > 9
    for lost in (1, 3, 8):
        with pytest.raises(RecordFailure):
            decode(RESTARTS[: markers[0]] + RESTARTS[markers[lost] :], LIMIT)


@pytest.mark.parametrize("kind", ["plain", "progressive", "restarts"])
def test_a_part_that_is_missing_in_the_middle_is_noticed(kind: str):
    data = KINDS[kind]
    middle = data.rindex(b"\xff\xda") + 30
    with pytest.raises(RecordFailure):
        decode(data[:middle] + data[middle + len(data[middle:]) // 3 :], LIMIT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [b"\0" * 3, b"\0" * 500, b"\xff" * 7])
def test_padding_before_the_end_marker_does_not_matter(kind: str, padding: bytes):
    assert np.array_equal(decode(KINDS[kind][:-2] + padding + END, LIMIT), decode(KINDS[kind], LIMIT))


EXIF = Image.Exif()
EXIF[0x0112] = 6
METADATA = {
    "exif cut": segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "exif of another order": segment(0xE1, b"Exif\0\0XX\0*" + bytes(9)),
    "exif empty": segment(0xE1, b"Exif\0\0"),
    "profile of no parts": segment(0xE2, b"ICC_PROFILE\0\1\0"),
    "profile without its second part": segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(300)),
    "multi-picture index cut": segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "photoshop": segment(0xED, b"Photoshop 3.0\0008BIM\4\4\xff\xff\xff\xff"),
    "xmp of many segments": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(60_000)) * 40,
    "comment": segment(0xFE, b"\xff" * 999),
    "future revision": segment(0xE0, b"JFIF\0\7\x63\0\0\1\0\1\x40\x40"),
    "adobe of no known transform": segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09"),
    "between segments": segment(0xFE, b"x") + b"garbage",
}


@pytest.mark.parametrize("kind", METADATA)
def test_damaged_metadata_is_no_reason_to_refuse(kind: str):
    assert np.array_equal(decode(after_start(PLAIN, METADATA[kind]), LIMIT), decode(PLAIN, LIMIT))
    turned = decode(after_start(PLAIN, METADATA[kind] + segment(0xE1, EXIF.tobytes())), LIMIT)
    assert np.array_equal(turned, np.rot90(decode(PLAIN, LIMIT), -1))


def test_a_scan_of_zeros_where_constants_must_be_is_mended():
    at = PLAIN.index(b"\xff\xda") + 2
    at += int.from_bytes(PLAIN[at : at + 2], "big") - 3
    assert PLAIN[at : at + 3] == b"\0\x3f\0"
    assert np.array_equal(decode(PLAIN[:at] + b"\0\0\0" + PLAIN[at + 3 :], LIMIT), decode(PLAIN, LIMIT))


def test_the_first_image_of_a_multi_picture_file():
    out = io.BytesIO()
    first, second = Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)
    first.save(out, "MPO", save_all=True, append_images=[second], quality=90)
    assert np.abs(decode(out.getvalue(), LIMIT).astype(int) - PHOTO).mean() < 5


@pytest.mark.parametrize("factors", [(0x21, 0x12, 0x11), (0x31, 0x11, 0x11), (0x11, 0x21, 0x21)])
def test_unusual_sampling(factors: tuple[int, int, int]):
    data = sampled(*factors)
    assert np.array_equal(decode(data, LIMIT), by_pillow(data))
    scan = data.index(b"\xff\xda") + 14
    with pytest.raises(RecordFailure, match="premature end"):
        decode(data[: scan + 40] + END, LIMIT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12-bit"),
        (PLAIN.replace(b"\xff\xc0", b"\xff\xc9"), "arithmetic"),
        (PLAIN.replace(b"\xff\xc0", b"\xff\xc3"), "lossless"),
        (PLAIN.replace(b"\xff\xc0", b"\xff\xc5"), "hierarchical"),
    ],
)
def test_varieties_that_are_not_read_are_named(data: bytes, words: str):
    with pytest.raises(RecordFailure, match=words) as caught:
        decode(data, LIMIT)
    assert caught.value.type == "UnsupportedImage"


def test_a_second_beginning_is_no_thumbnail_taken_for_the_image():
    thumbnail = encode(PHOTO[:16, :16])
    damaged = b"\xff\xe1\0\x08Exif\0\0" + thumbnail  # its length leaves the thumbnail out
    with pytest.raises(RecordFailure, match="begins again"):
        decode(after_start(PLAIN, damaged), LIMIT)
    assert image_size(PLAIN) == PHOTO.shape[:2]
