"""Outputs that exports are tested with."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from segbatch.results.dataset import MaskDataset, MaskRow
from tests import here
from tests.corpus import encode, photograph, photographs, write_folder, write_parquet

STRANGERS = (
    "a.jpg",
    "a.png",
    "A.JPG",
    "../../etc/passwd",
    "/absolute.jpg",
    ".hidden.jpg",
    "été/\x1b[31mred\n.jpg",
    "<script>alert(1)</script>.jpg",
    "a~0123abcd.jpg",
    "dots.in.the.name.jpg",
    "long/" + "x" * 300 + ".jpg",
    "folder.jpg/b",
    "100%.jpg",
)


def turned_jpeg(pixels_number: int) -> bytes:
    """A JPEG that is stored on its side, with the orientation that says so."""
    image = Image.fromarray(photograph(pixels_number, 40)[:24])
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six loose images: one on its side, one no image."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    samples = [("sub/" * (i % 2) + name, data) for i, (name, data) in enumerate(photographs(4, side=32))]
    return write_folder(folder, [*samples, ("turned.jpg", turned_jpeg(4)), ("page.jpg", b"<html>gone</html>")])


@pytest.fixture(scope="session")
def output(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of ``photos``: two files, five masks, an error row. Not to be changed."""
    output = tmp_path_factory.mktemp("output") / "out"
    here.run(here.spec([str(photos)], output, max_error_fraction=1))
    return output


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a table with image ids of strangers. Not to be changed."""
    folder = tmp_path_factory.mktemp("strangers")
    samples = [(name, encode(photograph(i, 24), "PNG")) for i, name in enumerate(STRANGERS)]
    write_parquet(folder / "in.parquet", samples)
    here.run(here.spec([str(folder / "in.parquet")], folder / "out"))
    return folder / "out"


def rows_of(output: Path) -> dict[str, MaskRow]:
    """The rows with a mask, by id."""
    return {row.image_id: row for row in MaskDataset.open(str(output)) if row.error is None}
