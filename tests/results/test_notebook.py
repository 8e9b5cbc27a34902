"""What notebooks show of an output: escaped, small, without scripts."""

from __future__ import annotations

import io
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

import segbatch
from segbatch.errors import SourceError
from tests import here
from tests.corpus import encode, write_folder

HOSTILE = "a'><img src=x onerror=alert(1)><script>alert(2).png"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, which compresses worst: twelve images, one of them with markup as its name, and an error."""
    folder = tmp_path_factory.mktemp("notebook")
    rng = np.random.default_rng(0)
    names = [HOSTILE] + [f"{i:02}.png" for i in range(11)]
    images = [(name, encode(rng.integers(0, 255, (200, 180, 3), np.uint8), "PNG")) for name in names]
    here.run(here.spec([str(write_folder(folder / "in", [*images, ("page.jpg", b"gone")]))], folder / "out"))
    return folder


def test_a_dataset_shows_its_classes_and_eight_overlays_in_200_kb(folder: Path) -> None:
    shown = segbatch.open(str(folder / "out"))._repr_html_()
    page = Page(shown)
    assert len(shown.encode()) <= 200_000
    assert "13 rows, 1 error" in page.text
    assert all(name in page.text for name in ("dark", "middle", "bright"))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8
    assert all(set(image) == {"src", "alt"} for image in images)
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in images)
    assert "script" not in {tag for tag, _ in page.tags}


def test_markup_in_a_name_stays_text(folder: Path) -> None:
    dataset = segbatch.open(str(folder / "out"))
    chosen = dataset.select(where=pc.field("image_id") == HOSTILE)
    page = Page(chosen._repr_html_())
    assert HOSTILE[-40:] in page.text
    assert [tag for tag, _ in page.tags if tag in ("img", "script")] == ["img"]


def test_masks_alone_are_shown_once_the_images_are_gone_and_the_reason(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    dataset = segbatch.open(str(moved / "out"), inputs=[str(moved / "nowhere")])
    row = next(iter(dataset.select(errors=False)))
    with pytest.raises(SourceError, match="nowhere"):
        row.overlay()
    drawn = row._repr_png_()
    assert drawn is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawn))), np.asarray(row.mask_image()))
    page = Page(dataset._repr_html_())
    assert "masks alone where the image is not available: " in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 8


def test_an_overlay_reads_the_image_of_the_run(folder: Path) -> None:
    row = segbatch.open(str(folder / "out"))["03.png"]
    with Image.open(folder / "in/03.png") as image:
        expected = row.overlay(image)
    assert np.array_equal(np.asarray(row.overlay()), np.asarray(expected))
    drawn = row._repr_png_()
    assert drawn is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawn))), np.asarray(expected))
    assert segbatch.open(str(folder / "out"))["page.jpg"]._repr_png_() is None
