"""The images of an output, read again from inputs of every format."""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segbatch.output.output import Output
from segbatch.results.dataset import MaskDataset
from segbatch.results.originals import Original, Originals
from tests import here
from tests.corpus import Sample, encode, photograph, photographs, write_folder, write_manifest, write_parquet, write_tar
from tests.storage.web_server import web_server

_IMAGES = photographs(10, side=40)


def _tar(folder: Path, images: list[Sample]) -> Path:
    return write_tar(folder / "a.tar", images)


def _parquet(folder: Path, images: list[Sample]) -> Path:
    return write_parquet(folder / "a.parquet", images, rows_per_group=3)


def _folder(folder: Path, images: list[Sample]) -> Path:
    return write_folder(folder, images)


def _manifest(folder: Path, images: list[Sample]) -> Path:
    write_folder(folder / "images", images)
    return write_manifest(folder / "a.csv", [f"images/{name}" for name, _ in images])


_FORMATS = pytest.mark.parametrize("write", [_tar, _parquet, _folder, _manifest])
Write = Callable[[Path, list[Sample]], Path]


def _read(output: Path, **options: object) -> list[Original]:
    """Read the images of all rows, given in an order of no meaning."""
    dataset = MaskDataset.open(str(output))
    rows = list(dataset)
    random.Random(1).shuffle(rows)
    return list(Originals(dataset.output, **options).read(rows))  # type: ignore[arg-type]


@_FORMATS
def test_each_row_gets_the_bytes_that_were_segmented(write: Write, tmp_path: Path) -> None:
    given = write(tmp_path / "in", _IMAGES)
    here.run(here.spec([str(given)], tmp_path / "out"))
    originals = _read(tmp_path / "out")
    assert [original.problem for original in originals] == [""] * len(_IMAGES)
    assert sorted(original.data or b"" for original in originals) == sorted(data for _, data in _IMAGES)
    names = {Path(original.row.image_id).stem: original.data for original in originals}
    assert names == {Path(name).stem: data for name, data in _IMAGES}


@_FORMATS
def test_an_input_that_changed_is_a_problem_and_never_another_image(write: Write, tmp_path: Path) -> None:
    given = write(tmp_path / "in", _IMAGES)
    here.run(here.spec([str(given)], tmp_path / "out", chunk_size=16))
    write(tmp_path / "in", [("0000-new.jpg", encode(photograph(5, 60))), *_IMAGES[1:]])
    originals = _read(tmp_path / "out")
    assert all(original.data is None for original in originals)
    assert all("changed" in o.problem or "not in the inputs" in o.problem for o in originals)


@_FORMATS
def test_an_input_that_is_gone_is_a_problem_and_a_moved_one_is_found_where_it_is_named(
    write: Write, tmp_path: Path
) -> None:
    given = write(tmp_path / "in", _IMAGES)
    here.run(here.spec([str(given)], tmp_path / "out"))
    moved = tmp_path / "elsewhere" / "in"
    moved.parent.mkdir()
    shutil.move(tmp_path / "in", moved)
    originals = _read(tmp_path / "out")
    assert len(originals) == len(_IMAGES)
    assert all(o.data is None and "name where they are now" in o.problem for o in originals)
    assert "\n" not in originals[0].problem
    originals = _read(tmp_path / "out", inputs=[str(moved / given.relative_to(tmp_path / "in"))])
    assert sorted(original.data or b"" for original in originals) == sorted(data for _, data in _IMAGES)


def test_one_image_of_a_folder_is_read_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", _IMAGES)
    here.run(here.spec([str(folder)], tmp_path / "out", chunk_size=16))
    dataset = MaskDataset.open(str(tmp_path / "out"))
    originals = Originals(dataset.output)
    assert originals.problem == ""  # the folder is listed by now
    name, data = _IMAGES[3]
    for other, _ in _IMAGES:
        if other != name:
            (folder / other).unlink()
    (original,) = pickle.loads(pickle.dumps(originals)).read([dataset[name]])
    assert original.data == data
    (gone,) = originals.read([dataset[_IMAGES[0][0]]])
    assert gone.data is None
    assert f"{_IMAGES[0][0]}: cannot be read: " in gone.problem


@pytest.mark.parametrize("chunk_size", [4, 16])
def test_images_that_were_added_hide_no_others(chunk_size: int, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", _IMAGES)
    here.run(here.spec([str(folder)], tmp_path / "out", chunk_size=chunk_size))
    write_folder(folder, [(f"new/{name}", data) for name, data in photographs(20, side=40)])
    originals = _read(tmp_path / "out")
    assert [original.problem for original in originals] == [""] * len(_IMAGES)
    assert {o.row.image_id: o.data for o in originals} == dict(_IMAGES)
    (folder / _IMAGES[0][0]).write_bytes(encode(photograph(5, 60)))
    changed = {o.row.image_id for o in _read(tmp_path / "out") if o.data is None}
    assert _IMAGES[0][0] in changed
    assert all("changed" in o.problem for o in _read(tmp_path / "out") if o.data is None)


def test_records_that_were_errors_have_their_reason(tmp_path: Path) -> None:
    samples = [*_IMAGES[:2], ("page.jpg", b"<html>gone</html>")]
    given = write_tar(tmp_path / "in" / "a.tar", [*samples, ("alone.txt", b"no image")])
    here.run(here.spec([str(given)], tmp_path / "out"))
    originals = {o.row.image_id: o for o in _read(tmp_path / "out")}
    assert originals["a.tar/page"].data == b"<html>gone</html>"
    assert originals["a.tar/alone"].data is None
    assert "cannot be read: no image among the members" in originals["a.tar/alone"].problem


def test_a_signed_url_is_read_again_where_it_is_named_with_a_new_signature(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "a.tar", _IMAGES).read_bytes()
    answers = {f"/a.tar?token={signature}": data for signature in ("old", "new")} | {"/a.tar": 403}
    with web_server(answers) as (url, _):
        here.run(here.spec([f"{url}/a.tar?token=old"], tmp_path / "out"))
        originals = _read(tmp_path / "out")
        assert all(original.data is None for original in originals)
        assert "outputs keep no signatures of URLs" in originals[0].problem
        assert "token" not in originals[0].problem
        originals = _read(tmp_path / "out", inputs=[f"{url}/a.tar?token=new"])
    assert sorted(original.data or b"" for original in originals) == sorted(data for _, data in _IMAGES)


def test_an_unfinished_output_has_images_too(tmp_path: Path) -> None:
    given = write_tar(tmp_path / "in" / "a.tar", _IMAGES)
    here.run(here.spec([str(given)], tmp_path / "out"))
    (tmp_path / "out" / "_SUCCESS").unlink()
    Output.open(str(tmp_path / "out")).update(state="running")
    assert all(original.data for original in _read(tmp_path / "out"))
