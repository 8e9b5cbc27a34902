"""Each variety of image is shown as OpenCV shows it, or is refused by name."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from segbatch.codecs.decode import decode, image_size
from segbatch.errors import RecordFailure
from tests.codecs.image_files import DEFLATE, UNCOMPRESSED, bmp, bmp_rows, tiff
from tests.corpus import encode, photograph

PHOTO = np.ascontiguousarray(photograph(0, 70)[:53, :61])  # of odd sides, with tiles and bytes that are cut
HEIGHT, WIDTH = PHOTO.shape[:2]
DEEP = PHOTO.astype(np.uint16) * 257
GRAY = PHOTO[:, :, 1]
LIMIT = 10**7


def by_opencv(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found[:, :, ::-1]


def shown(data: bytes) -> np.ndarray:
    pixels = decode(data, LIMIT)
    assert image_size(data) == pixels.shape[:2]
    return pixels


def refusal(data: bytes) -> RecordFailure:
    with pytest.raises(RecordFailure) as caught:
        decode(data, LIMIT)
    return caught.value


LAYOUTS: list[dict[str, Any]] = [
    {"planar": planar, "order": order, "compression": compression, **blocks, "big": big}
    for planar, order, compression, blocks, big in itertools.product(
        (False, True), "<>", (UNCOMPRESSED, DEFLATE), ({}, {"rows": 7}, {"tile": 32}), (False, True)
    )
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda o: "-".join(map(str, o.values())))
def test_tiffs_of_every_depth_and_layout(layout: dict[str, Any]):
    data = tiff(PHOTO, **layout)
    assert np.array_equal(shown(data), PHOTO)
    assert np.array_equal(by_opencv(data), PHOTO)
    for deep in (DEEP, PHOTO.astype(np.uint32) << 24):
        assert np.array_equal(shown(tiff(deep, **layout)), PHOTO)
    assert np.array_equal(by_opencv(tiff(DEEP, **layout)), PHOTO)
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(shown(tiff((PHOTO / 255).astype(kind), **layout)), PHOTO)
    gray = {**layout, "photometric": 1}
    assert np.array_equal(shown(tiff(DEEP[:, :, :1], **gray)), np.repeat(PHOTO[:, :, :1], 3, 2))
    inverted = {**layout, "photometric": 0}
    assert np.array_equal(shown(tiff(65535 - DEEP[:, :, :1], **inverted)), np.repeat(PHOTO[:, :, :1], 3, 2))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("pixels", [PHOTO, DEEP], ids=["8", "16"])
def test_tiffs_with_a_predictor(planar: bool, pixels: np.ndarray):
    packed = {"compression": DEFLATE, "predictor": True, "rows": 9}
    data = tiff(pixels, planar=planar, **packed)
    gray = np.repeat(PHOTO[:, :, :1], 3, 2)
    top = np.iinfo(pixels.dtype).max
    for order in "<>":
        assert np.array_equal(shown(tiff(pixels[:, :, :1], photometric=1, order=order, **packed)), gray)
        assert np.array_equal(shown(tiff(top - pixels[:, :, :1], photometric=0, order=order, **packed)), gray)
    wide = pixels[:, :, :1].astype(np.uint32) << (24 if top == 255 else 16)
    assert np.array_equal(shown(tiff(wide, photometric=1, **packed)), gray)
    assert np.array_equal(by_opencv(data), PHOTO)
    assert np.array_equal(shown(data), PHOTO)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("pixels", [PHOTO, DEEP], ids=["8", "16"])
def test_tiffs_of_more_bands_than_colors(planar: bool, pixels: np.ndarray):
    other = pixels[:, :, :1] // 2
    assert np.array_equal(shown(tiff(np.dstack([pixels, other]), planar=planar, extra=(0,))), PHOTO)
    assert np.array_equal(shown(tiff(np.dstack([pixels, other, other]), planar=planar, extra=(0, 0))), PHOTO)
    top = np.iinfo(pixels.dtype).max
    alpha = np.linspace(0, top, WIDTH).astype(pixels.dtype)[None, :, None].repeat(HEIGHT, 0)
    share = alpha / top
    white = PHOTO * share + 255 * (1 - share)
    assert np.abs(shown(tiff(np.dstack([pixels, alpha]), planar=planar, extra=(2,))) - white).max() <= 1.5
    premultiplied = (pixels * share).astype(pixels.dtype)
    assert np.abs(shown(tiff(np.dstack([premultiplied, alpha]), planar=planar, extra=(1,))) - white).max() <= 3
    assert np.array_equal(shown(tiff(np.dstack([pixels, alpha * 0]), planar=planar, extra=(2,))), PHOTO)
    cmyk = np.asarray(Image.fromarray(PHOTO).convert("CMYK")).astype(pixels.dtype) * (top // 255)
    assert np.abs(shown(tiff(cmyk, planar=planar, photometric=5)).astype(int) - PHOTO).max() <= 1


def test_tiffs_that_are_refused_are_named():
    for data in (
        tiff(np.dstack([PHOTO, GRAY]), photometric=1, extra=(0, 0, 0)),
        tiff(np.dstack([DEEP, DEEP]), photometric=1, planar=True),
        tiff(DEEP, photometric=8, planar=True),
        tiff(PHOTO.astype(np.uint32), predictor=True, compression=DEFLATE, order=">"),
        tiff(PHOTO.astype(np.uint32), planar=True, predictor=True, compression=DEFLATE, order=">", photometric=6),
    ):
        failure = refusal(data)
        assert failure.type == "UnsupportedImage"
        assert "TIFF" in failure.message


def test_metadata_of_a_tiff_does_not_matter():
    tags: dict[int, tuple[str, list[int]]] = {
        274: ("H", [6]),
        700: ("B", [60] * 9000),
        34665: ("I", [2**31]),
        34675: ("B", [1] * 99),
        34853: ("I", [7]),
        42112: ("Q", [2**60]),
        50000: ("I", [1, 2, 3]),
    }
    assert np.array_equal(decode(tiff(PHOTO, tags=tags), LIMIT), np.rot90(PHOTO, -1))
    damaged = tiff(PHOTO, tags=tags).replace(struct.pack("<HHI", 34675, 1, 99), struct.pack("<HHI", 34675, 7, 2**31))
    assert np.array_equal(decode(damaged, LIMIT), np.rot90(PHOTO, -1))
    assert np.array_equal(decode(tiff(DEEP, planar=True, tags=tags), LIMIT), np.rot90(PHOTO, -1))


def test_a_planar_tiff_that_is_cut_is_refused():
    for options in ({}, {"tile": 32}, {"compression": DEFLATE, "rows": 7}):
        data = tiff(DEEP, planar=True, **options)
        directory = struct.unpack_from("<I", data, 4)[0]
        # As writers do that put the directory first: what is missing is at the end.
        for cut in (10, 3000):
            assert refusal(data[: directory - cut] + bytes(0)).type == "TruncatedImage"


BGR = PHOTO[:, :, ::-1]
BGRX = np.dstack([BGR, np.zeros_like(GRAY)])
MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
FIVES = (PHOTO >> 3).astype(np.uint16)
SIX = (PHOTO[:, :, 1] >> 2).astype(np.uint16)
RGB555 = FIVES[:, :, 0] << 10 | FIVES[:, :, 1] << 5 | FIVES[:, :, 2]
RGB565 = FIVES[:, :, 0] << 11 | SIX << 5 | FIVES[:, :, 2]
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
PALETTE[:, 3] = 0
INDICES = (GRAY // 16).astype(np.uint8)


def nibbles() -> np.ndarray:
    even = np.pad(INDICES, ((0, 0), (0, WIDTH % 2)))
    return even[:, ::2] << 4 | even[:, 1::2]


def top_down(rows: bytes) -> bytes:
    stride = len(rows) // HEIGHT
    return b"".join(rows[at : at + stride] for at in range(len(rows) - stride, -1, -stride))


def bmps() -> dict[str, bytes]:
    found = {
        "24-core": bmp(bmp_rows(BGR), HEIGHT, WIDTH, 24, header=12),
        "24-top-down": bmp(top_down(bmp_rows(BGR)), HEIGHT, WIDTH, 24, top_down=True),
        "16-555": bmp(bmp_rows(RGB555), HEIGHT, WIDTH, 16),
        "16-555-masks": bmp(bmp_rows(RGB555), HEIGHT, WIDTH, 16, compression=3, masks=(0x7C00, 0x3E0, 0x1F)),
        "16-565": bmp(bmp_rows(RGB565), HEIGHT, WIDTH, 16, compression=3, masks=(0xF800, 0x7E0, 0x1F)),
        "8": bmp(bmp_rows(INDICES), HEIGHT, WIDTH, 8, palette=PALETTE.tobytes()),
        "8-short-palette": bmp(bmp_rows(INDICES), HEIGHT, WIDTH, 8, palette=PALETTE[:16].tobytes()),
        "4": bmp(bmp_rows(nibbles()), HEIGHT, WIDTH, 4, palette=PALETTE[:16].tobytes()),
        "1": bmp(bmp_rows(np.packbits(GRAY > 99, axis=1)), HEIGHT, WIDTH, 1, palette=PALETTE[:2].tobytes()),
        "rle4": bmp(rle4(), HEIGHT, WIDTH, 4, compression=2, palette=PALETTE[:16].tobytes()),
        "rle8": bmp(rle8(), HEIGHT, WIDTH, 8, compression=1, palette=PALETTE.tobytes()),
    }
    for header in (40, 52, 56, 108, 124):
        found[f"32-{header}"] = bmp(bmp_rows(BGRX), HEIGHT, WIDTH, 32, header=header)
        found[f"24-{header}"] = bmp(bmp_rows(BGR), HEIGHT, WIDTH, 24, header=header)
        masks = MASKS if header > 52 else MASKS[:3]
        found[f"32-{header}-masks"] = bmp(bmp_rows(BGRX), HEIGHT, WIDTH, 32, header=header, compression=3, masks=masks)
    return found


def rle8(whole: bool = True) -> bytes:
    out = bytearray()
    for row in INDICES[::-1]:
        for value, run in itertools.groupby(row.tolist()):
            out += bytes([len(list(run)), value])
        out += b"\0\0"
    return bytes(out + b"\0\1") if whole else bytes(out[: len(out) // 2])


def rle4() -> bytes:
    """Each row as two absolute runs and one encoded run, padded to whole words."""
    out = b""
    for row, packed in zip(INDICES[::-1], nibbles()[::-1], strict=True):
        first, second = packed[:10].tobytes(), packed[10:25].tobytes()
        rest = b"".join(bytes([1, value << 4]) for value in row[50:].tolist())
        out += b"\0\x14" + first + b"\0\x1e" + second + b"\0" + rest + b"\0\0"
    return out + b"\0\1"


def test_runs_of_a_bmp_that_leave_pixels_out():
    """Rows without a run, a step over pixels, and an end before the last row: all in the first color."""
    runs = b"\x02\x05\0\0" + b"\0\0" + b"\0\2\1\1" + b"\x02\x07" + b"\0\1"
    pixels = shown(bmp(runs, 6, 4, 8, compression=1, palette=PALETTE.tobytes()))
    indices = np.zeros((6, 4), int)
    indices[0, :2], indices[3, 1:3] = 5, 7
    assert np.array_equal(pixels, PALETTE[indices[::-1], :3][:, :, ::-1])


@pytest.mark.parametrize("kind", bmps())
def test_bmps_of_every_version_and_depth(kind: str):
    data = bmps()[kind]
    assert np.abs(shown(data).astype(int) - by_opencv(data)).max() <= (8 if kind.startswith("16") else 0)


def test_the_alpha_of_a_bmp_counts_unless_it_is_zero_everywhere():
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :].repeat(HEIGHT, 0)
    data = bmp(bmp_rows(np.dstack([BGR, alpha])), HEIGHT, WIDTH, 32, header=124, compression=3, masks=MASKS)
    share = alpha[:, :, None] / 255
    assert np.abs(shown(data) - (PHOTO * share + 255 * (1 - share))).max() <= 1
    # Without a mask of its own the fourth byte is none.
    assert np.array_equal(shown(bmp(bmp_rows(np.dstack([BGR, alpha])), HEIGHT, WIDTH, 32)), PHOTO)


def test_bmps_that_are_refused_are_named():
    for data in (
        bmp(bmp_rows(INDICES), HEIGHT, WIDTH, 2, palette=PALETTE[:4].tobytes()),
        bmp(encode(PHOTO), HEIGHT, WIDTH, 24, compression=4),
        bmp(bmp_rows(RGB565), HEIGHT, WIDTH, 16, compression=3, masks=(0xF, 0xF0, 0xF00)),
    ):
        failure = refusal(data)
        assert (failure.type, "BMP" in failure.message) == ("UnsupportedImage", True)
    assert refusal(bmp(rle8(whole=False), HEIGHT, WIDTH, 8, compression=1, palette=PALETTE.tobytes()))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_that_is_zero_everywhere_means_nothing(format: str):
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    assert np.array_equal(shown(encode(np.dstack([PHOTO, np.zeros_like(GRAY)]), format, **options)), PHOTO)


def png(pixels: np.ndarray, bits: int, color: int, interlaced: bool = False, chunks: bytes = b"") -> bytes:
    """A PNG of rows of bytes, or of 16-bit samples, as they are; interlaced only in one pass, which 1 x 1 has."""
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in pixels)
    width = {16: 1, 8: 1, 4: 2, 2: 4, 1: 8}[bits] * pixels.shape[1]
    header = struct.pack(">IIBBBBB", width, pixels.shape[0], bits, color, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def chunk(kind: bytes, data: bytes = b"", wrong_by: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong_by)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("color", [0, 3])
def test_pngs_of_one_channel(bits: int, color: int):
    if (bits, color) == (16, 3):
        return
    rng = np.random.default_rng(bits)
    pixels = rng.integers(0, 2 ** min(bits, 16) if bits > 8 else 256, (20, 16)).astype(np.uint16)
    palette = chunk(b"PLTE", rng.integers(0, 256, 3 * 2**bits, np.uint8).tobytes()) if color == 3 else b""
    data = png(pixels, bits, color, chunks=palette)
    assert np.array_equal(shown(data), by_opencv(data))


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_pngs_of_sixteen_bits(color: int, channels: int):
    pixels = np.random.default_rng(color).integers(0, 65536, (20, 16 * channels)).astype(np.uint16)
    if channels in (2, 4):
        pixels[:, channels - 1 :: channels] = 65535
    data = png(pixels, 16, color).replace(struct.pack(">II", 16 * channels, 20), struct.pack(">II", 16, 20))
    data = data[:8] + chunk(b"IHDR", data[16:29]) + data[33:]
    assert np.array_equal(shown(data), by_opencv(data))


PNG = encode(PHOTO, "PNG")
ANCILLARY = {
    "text of a wrong checksum": chunk(b"tEXt", b"Comment\0hello", wrong_by=1),
    "text of 80 MB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 1)),
    "text that is no zlib": chunk(b"iTXt", b"Comment\0\1\0\0\0no zlib"),
    **{
        f"short {kind!r}": chunk(kind, b"\0")
        for kind in (b"gAMA", b"pHYs", b"cHRM", b"tIME", b"bKGD", b"sBIT", b"tRNS")
    },
    **{
        f"empty {kind!r}": chunk(kind)
        for kind in (b"sRGB", b"gAMA", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"cICP", b"iCCP")
    },
    "transparency of a wrong checksum": chunk(b"tRNS", bytes(6), wrong_by=1),
    "profile": chunk(b"iCCP", b"x\0\0garbage"),
    "exif": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "animation of no frames": chunk(b"acTL", bytes(8)),
    "animation control cut": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(9)),
    "private": chunk(b"zzZz", bytes(999), wrong_by=9),
}


@pytest.mark.parametrize("kind", ANCILLARY)
def test_ancillary_chunks_are_no_reason_to_refuse_a_png(kind: str):
    first = PNG.index(b"IDAT") - 4
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for data in (PNG[:first] + ANCILLARY[kind] + PNG[first:], PNG[:-12] + ANCILLARY[kind] + PNG[-12:]):
        assert np.array_equal(shown(data), PHOTO)
    assert np.array_equal(decode(PNG[:first] + ANCILLARY[kind] + turned + PNG[first:], LIMIT), np.rot90(PHOTO, -1))


def test_a_gif_is_shown_whatever_its_extensions_hold():
    data = encode(Image.fromarray(PHOTO).quantize(16), "GIF", transparency=3)
    expected, header = shown(data), 13 + (3 << (data[10] & 7) + 1)
    assert (expected == 255).all(axis=2).any()
    for extension in (
        b"!\xfe" + (b"\xff" + bytes(255)) * 300 + b"\0",
        b"!\xff\x0bNETSCAPE2.0\0",
        b"!\xff\x02xx\0",
        b"!\xf9\x01\xff\0",
        b"!\x01\0",
        b"\0\0",
    ):
        assert np.array_equal(shown(data[:header] + extension + data[header:]), expected)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_shown_whatever_its_metadata_holds(lossless: bool):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encode(PHOTO, "WEBP", lossless=lossless, exif=exif, icc_profile=b"x" * 200, xmp=b"<x:xmpmeta/>" * 9)
    expected = decode(whole, LIMIT)
    assert expected.shape == (WIDTH, HEIGHT, 3)
    at = whole.index(b"EXIF")
    damaged = whole[: at + 8] + b"MM\0*\xff\xff\xff\xff".ljust(len(whole) - at - 8, b"\xff")
    assert np.array_equal(decode(damaged, LIMIT), np.rot90(expected))
    assert np.array_equal(decode(whole[: at + 12], LIMIT), np.rot90(expected))  # the cut is behind the image
    at = whole.index(b"ICCP") + 8
    assert np.array_equal(decode(whole[:at] + bytes(200) + whole[at + 200 :], LIMIT), expected)
    image = whole.index(b"VP8L" if lossless else b"VP8 ", 30)
    for cut in range(image + 8, whole.index(b"EXIF"), 97):
        closed = whole[:cut]
        closed = closed[:4] + struct.pack("<I", cut - 8) + closed[8 : image + 4] + struct.pack("<I", cut - image - 8)
        closed += whole[image + 8 : cut]
        assert refusal(closed + b"\0" * (cut % 2)).type in ("TruncatedImage", "CorruptImage")
        assert refusal(whole[:cut]).type == "TruncatedImage"


AVIF_OPTIONS: dict[str, Any] = {"quality": 95, "subsampling": "4:4:4", "speed": 10}


def test_avif_as_opencv_shows_it():
    data = encode(PHOTO, "AVIF", **AVIF_OPTIONS)
    assert np.abs(shown(data).astype(int) - by_opencv(data)).max() <= 3
    assert np.abs(shown(data).astype(int) - PHOTO).mean() < 4
    gray = encode(Image.fromarray(GRAY), "AVIF", **AVIF_OPTIONS)
    assert np.abs(shown(gray)[:, :, 0].astype(int) - GRAY).mean() < 4
    alpha = np.full_like(GRAY, 128)
    assert np.abs(shown(encode(np.dstack([PHOTO, alpha]), "AVIF", **AVIF_OPTIONS)) - (PHOTO / 2.0 + 127)).mean() < 5
    done, ten_bits = cv2.imencode(".avif", DEEP[:, :, ::-1] >> 6, [cv2.IMWRITE_AVIF_DEPTH, 10])
    assert done
    assert np.abs(shown(ten_bits.tobytes()).astype(int) - by_opencv(ten_bits.tobytes())).mean() < 1
    two = encode(Image.fromarray(PHOTO), "AVIF", save_all=True, append_images=[Image.fromarray(255 - PHOTO)])
    assert np.abs(shown(two).astype(int) - PHOTO).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_by_its_boxes_and_not_by_its_exif(orientation: int):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a description, so that the EXIF stays"
    expected = decode(encode(PHOTO, "PNG", exif=exif), LIMIT)
    data = encode(PHOTO, "AVIF", exif=exif, **AVIF_OPTIONS)
    assert np.abs(decode(data, LIMIT).astype(int) - expected).mean() < 4
    at = data.index(b"MM\0*") if b"MM\0*" in data else data.index(b"II*\0")
    assert np.array_equal(decode(data[: at + 4] + b"\xff" * 4 + data[at + 8 :], LIMIT), decode(data, LIMIT))


def test_an_avif_that_is_cut_or_too_large_is_refused():
    data = encode(PHOTO, "AVIF", **AVIF_OPTIONS)
    for end in range(20, len(data), 31):
        refusal(data[:end])
    at = data.index(b"ispe") + 8
    failure = refusal(data[:at] + struct.pack(">II", 20_000, 20_000) + data[at + 8 :])
    assert failure.type == "DecompressionBomb"


def heic(**options: Any) -> bytes:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PHOTO)).save(out, quality=95, chroma=444, **options)
    return out.getvalue()


def test_heic_is_read_with_its_extra():
    data = heic()
    assert np.abs(decode(data, LIMIT).astype(int) - PHOTO).mean() < 5
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.abs(decode(heic(exif=exif.tobytes()), LIMIT).astype(int) - np.rot90(PHOTO, -1)).mean() < 5
    at = data.index(b"ispe") + 8
    assert refusal(data[:at] + struct.pack(">II", 20_000, 20_000) + data[at + 8 :]).type == "DecompressionBomb"
    for end in range(20, len(data), 101):
        refusal(data[:end])


def test_heic_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch):
    data = heic()
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    failure = refusal(data)
    assert failure.type == "UnsupportedImage"
    assert "HEIC" in failure.message
    assert "pip install 'segbatch[heif]'" in failure.message
