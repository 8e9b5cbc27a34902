"""Pixels as a viewer shows them, whatever is in the file."""

from __future__ import annotations

import io
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segbatch.codecs.decode import decode, image_size
from segbatch.errors import RecordFailure
from tests.corpus import encode, photograph, png_file

PHOTO = photograph(1, 64)
HEIGHT, WIDTH = PHOTO.shape[:2]
LIMIT = 100_000_000


def gray3(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def close(a: np.ndarray, b: np.ndarray, mean: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(float) - b.astype(float)).mean()) < mean


@pytest.mark.parametrize(
    ("format", "mean"), [("PNG", 0.1), ("BMP", 0.1), ("TIFF", 0.1), ("JPEG", 6), ("WEBP", 8), ("GIF", 25)]
)
def test_a_photograph_in_every_format(format: str, mean: float):
    data = encode(PHOTO, format)
    pixels = decode(data, LIMIT)
    assert close(pixels, PHOTO, mean)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.owndata
    assert pixels.flags.writeable
    assert image_size(data) == (HEIGHT, WIDTH)


# What must be done to the stored picture for it to stand upright, as EXIF 2.32 puts it.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_exif_says(format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(format, {})
    data = encode(PHOTO, format, exif=exif, **options)
    assert close(decode(data, LIMIT), UPRIGHT[orientation](PHOTO), 3)


def test_damaged_exif_is_no_reason_to_refuse():
    assert decode(encode(PHOTO, "PNG", exif=b"Exif\0\0II\x2a\0\xff\xff\xff\xff"), LIMIT).shape == PHOTO.shape


def test_more_than_eight_bits_keep_the_high_byte():
    deep = np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) * 16 % 65536
    deep = deep.astype(np.uint16)
    expected = gray3((deep >> 8).astype(np.uint8))
    assert np.array_equal(decode(encode(deep, "PNG"), LIMIT), expected)
    assert np.array_equal(decode(encode(deep, "TIFF"), LIMIT), expected)
    wide = (deep.astype(np.int32) << 15) | 0x7FFF
    assert np.array_equal(decode(encode(wide, "TIFF"), LIMIT), gray3((wide >> 23).astype(np.uint8)))


def test_sixteen_bit_colors_in_png():
    rows = np.repeat(np.arange(48, dtype=np.uint16).reshape(4, 4, 3) * 1300, 1, axis=0)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    data = png_file(4, 4, bits=16, idat=zlib.compress(raw))
    assert np.array_equal(decode(data, LIMIT), (rows >> 8).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.2, 254.9], [0, 100, 255]),
        ([-1000.0, 0.0, 1000.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([5000.0, 5000.0, 5000.0], [0, 0, 0]),
    ],
)
def test_float_tiffs(values: list[float], expected: list[int]):
    data = encode(np.array([values], np.float32), "TIFF")
    assert decode(data, LIMIT)[0, :, 0].tolist() == expected


def test_gray_and_one_bit():
    gray = PHOTO[:, :, 1]
    for format in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(decode(encode(gray, format), LIMIT), gray3(gray))
    assert close(decode(encode(gray, "JPEG"), LIMIT), gray3(gray), 6)
    two = Image.fromarray(gray).point(lambda v: 255 * (v > 100)).convert("1")
    expected = gray3((gray > 100).astype(np.uint8) * 255)
    for format in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(decode(encode(two, format), LIMIT), expected)
    assert np.array_equal(decode(encode(two, "TIFF", compression="group4"), LIMIT), expected)


def test_palettes():
    image = Image.fromarray(PHOTO).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(decode(encode(image, format), LIMIT), expected), format


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_color_of_a_palette_is_white(format: str):
    image = Image.fromarray(PHOTO).quantize(16)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 3] = 255
    assert np.array_equal(decode(encode(image, format, transparency=3), LIMIT), expected)


def test_half_transparent_palettes():
    image = Image.fromarray(PHOTO).quantize(4)
    alphas = bytes([255, 128, 0, 64])
    alpha = np.frombuffer(alphas, np.uint8)[np.asarray(image)][:, :, None] / 255
    expected = np.asarray(image.convert("RGB")) * alpha + 255 * (1 - alpha)
    assert np.abs(decode(encode(image, "PNG", transparency=alphas), LIMIT) - expected).max() <= 1


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_alpha_is_composed_over_white(format: str, options: dict[str, Any]):
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    share = alpha[:, :, None] / 255
    data = encode(np.dstack([PHOTO, alpha]), format, **options)
    assert np.abs(decode(data, LIMIT) - (PHOTO * share + 255 * (1 - share))).max() <= 1


def test_gray_with_alpha():
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    gray = PHOTO[:, :, 0]
    expected = gray * (alpha / 255) + 255 - alpha.astype(float)
    pixels = decode(encode(Image.fromarray(np.dstack([gray, alpha]), "LA"), "PNG"), LIMIT)
    assert np.abs(pixels[:, :, 2] - expected).max() <= 1


def test_a_transparent_color_of_rgb():
    picture = PHOTO.copy()
    picture[:10] = (1, 2, 3)
    pixels = decode(encode(picture, "PNG", transparency=(1, 2, 3)), LIMIT)
    assert (pixels[:10] == 255).all()
    assert np.array_equal(pixels[10:], picture[10:])


def test_cmyk_and_ycck_jpegs():
    """Adobe stores CMYK inverted, and says by its marker whether it is CMYK (0) or YCCK (2)."""
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    data = encode(cmyk, "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    assert data[at] in (0, 2)
    expected = np.asarray(cmyk.convert("RGB"))
    assert close(decode(data, LIMIT), expected, 5)
    # The same coefficients, told to be of the other kind, are other colors: the marker is heeded.
    other = decode(data[:at] + bytes([2 - data[at]]) + data[at + 1 :], LIMIT)
    assert other.shape == PHOTO.shape
    assert not close(other, expected, 20)


def test_cmyk_and_lab_tiffs():
    image = Image.fromarray(PHOTO)
    assert close(decode(encode(image.convert("CMYK"), "TIFF"), LIMIT), PHOTO, 3)
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    assert close(decode(encode(ImageCms.applyTransform(image, to_lab), "TIFF"), LIMIT), PHOTO, 3)


def animated(format: str, **options: Any) -> bytes:
    frames = [Image.fromarray(f) for f in (PHOTO, 255 - PHOTO)]
    out = io.BytesIO()
    frames[0].save(out, format, save_all=True, append_images=frames[1:], duration=100, **options)
    return out.getvalue()


@pytest.mark.parametrize(("format", "mean"), [("GIF", 25), ("WEBP", 3), ("PNG", 0.1), ("TIFF", 0.1)])
def test_the_first_frame_of_many(format: str, mean: float):
    data = animated(format, **({"lossless": True} if format == "WEBP" else {}))
    assert close(decode(data, LIMIT), PHOTO, mean)


def test_the_first_frame_of_a_gif_whose_second_is_cut():
    data = animated("GIF")
    assert close(decode(data[: len(data) * 3 // 4], LIMIT), PHOTO, 25)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_max_pixels_is_the_largest_allowed(format: str):
    data = encode(PHOTO, format)
    assert decode(data, HEIGHT * WIDTH).shape == PHOTO.shape
    with pytest.raises(RecordFailure, match=r"raise max_pixels if such images are meant") as caught:
        decode(data, HEIGHT * WIDTH - 1)
    assert (caught.value.stage, caught.value.type) == ("decode", "DecompressionBomb")


def test_warnings_of_pillow_are_unseen_and_those_of_others_are_not():
    data = encode(PHOTO, "PNG", exif=b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(io.BytesIO(data)) as image:
        image.getexif()

    def work() -> None:
        for _ in range(20):
            decode(data, LIMIT)

    threads = [threading.Thread(target=work) for _ in range(3)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("mine", stacklevel=1)
    assert [str(w.message) for w in caught] == ["mine"]


def test_pillows_own_limit_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(decode(encode(PHOTO, "PNG"), LIMIT), PHOTO)
