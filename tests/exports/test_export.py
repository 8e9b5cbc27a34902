"""The engine of exports: parts, resumption, refusals, photographs, what is left out."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segbatch.errors import PlanError, SpecError
from segbatch.exports import EXPORTS
from segbatch.exports.png import gray_png
from segbatch.operations.compact import compact
from segbatch.operations.export import ExportResult, export
from tests.exports.conftest import STRANGERS, rows_of
from tests.kills import Killed, Steps


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run(output: Path, target: Path, to: str = "coco-rle", **options: object) -> ExportResult:
    return export(str(output), to=to, target=str(target), **options)  # type: ignore[arg-type]


def killed(output: Path, folder: Path, to: str, every: int = 1, images: str = "copy") -> Iterator[Path]:
    """Exports that were killed before their first change of the file system, their second, and so on."""
    step = 0
    while True:
        target = folder / str(step)
        with Steps(step, Steps.kill) as steps:
            try:
                run(output, target, to, images=images)
            except Killed:
                pass
            else:
                assert step > 5
                return
        assert steps.count == step + 1
        step += every
        yield target


@pytest.mark.parametrize("to", sorted(EXPORTS))
def test_a_killed_export_resumes_and_gives_the_same_files(output: Path, tmp_path: Path, to: str) -> None:
    images = "link" if to == "png" else "copy"
    run(output, tmp_path / "whole", to, images=images)
    expected = tree(tmp_path / "whole")
    assert not [name for name in expected if name.startswith(("_export/", ".tmp"))]
    for target in killed(output, tmp_path / "killed", to, every=1 if to == "coco-rle" else 15, images=images):
        run(output, target, to, images=images)
        assert tree(target) == expected


def test_complete_parts_are_kept(output: Path, tmp_path: Path) -> None:
    for target in killed(output, tmp_path, "png"):
        complete = {path: path.stat().st_mtime_ns for path in (target / "_export/parts").glob("*")}
        masks = {path: path.stat().st_mtime_ns for path in (target / "masks").rglob("*.png")}
        if len(complete) == 1:
            break
    assert complete
    run(output, target, "png", images="copy")
    kept = [path for path, written in masks.items() if path.stat().st_mtime_ns == written]
    assert kept


def test_two_exports_at_once_write_the_same_files(output: Path, tmp_path: Path) -> None:
    run(output, tmp_path / "one")
    results, errors = [], []

    def work() -> None:
        try:
            results.append(run(output, tmp_path / "two").counts)
        except Exception as e:  # reported by the assertion below
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert {counts.images for counts in results} == {5}
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


def test_another_export_into_the_same_folder_is_refused_with_the_difference(output: Path, tmp_path: Path) -> None:
    first = run(output, tmp_path / "e")
    before = tree(tmp_path / "e")
    assert run(output, tmp_path / "e").counts == first.counts
    with pytest.raises(PlanError, match=r"holds another export: options.min_area 0 there, 9 requested"):
        run(output, tmp_path / "e", min_area=9)
    with pytest.raises(PlanError, match=r'options.to "coco-rle" there, "png" requested'):
        run(output, tmp_path / "e", "png")
    assert tree(tmp_path / "e") == before


def test_files_of_others_are_never_touched(output: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PlanError, match=r"is not empty \(notes.txt\); choose another --output"):
        run(output, tmp_path)
    (tmp_path / "notes.txt").rename(tmp_path / "_export.json")
    with pytest.raises(PlanError, match=r"_export\.json: not the record of an export"):
        run(output, tmp_path)
    assert tree(tmp_path) == {"_export.json": b"mine"}


def test_a_target_in_the_output_or_among_the_inputs_is_refused(output: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    for target in (output / "exports", photos / "masks", tmp_path / "link" / "masks", output):
        with pytest.raises(PlanError, match=r"lies in the (output|input)"):
            run(output, target)
    assert not (output / "exports").exists()


def test_error_rows_are_counted_and_named(output: Path, tmp_path: Path) -> None:
    counts = run(output, tmp_path / "e").counts
    assert (counts.images, counts.errors) == (5, 1)
    (error,) = map(json.loads, (tmp_path / "e/errors.jsonl").read_text().splitlines())
    assert (error["image_id"], error["stage"], error["type"]) == ("page.jpg", "decode", "UnknownFormat")


def test_names_of_strangers_stay_in_the_folder_and_apart(strangers: Path, tmp_path: Path) -> None:
    run(strangers, tmp_path / "e", "png", images="copy")
    names = pq.read_table(tmp_path / "e/names.parquet").to_pylist()
    rows = rows_of(strangers)
    assert {row["image_id"] for row in names} == set(rows)
    assert len(rows) == len(STRANGERS)
    assert sorted(row["number"] for row in names) == [*range(1, len(rows) + 1)]
    assert sorted(os.listdir(tmp_path)) == ["e"]
    for row in names:
        with Image.open(tmp_path / "e/masks" / f"{row['file']}.png") as mask:
            assert np.array_equal(np.asarray(mask), rows[row["image_id"]].mask)
        assert (tmp_path / "e" / row["image"]).is_file()
    masks = [str(p.relative_to(tmp_path)).casefold() for p in (tmp_path / "e/masks").rglob("*.png")]
    assert len(set(masks)) == len(rows)


def test_photographs_are_upright_without_the_tag_and_the_others_are_the_same_bytes(
    output: Path, photos: Path, tmp_path: Path
) -> None:
    counts = run(output, tmp_path / "e", "png", images="copy").counts
    assert (counts.turned, counts.missing) == (1, 0)
    for row in pq.read_table(tmp_path / "e/names.parquet").to_pylist():
        copied = tmp_path / "e" / row["image"]
        if row["image_id"] != "turned.jpg":
            assert copied.read_bytes() == (photos / row["image_id"]).read_bytes()
        with Image.open(copied) as image:
            assert image.getexif().get(0x0112, 1) == 1
            assert image.size[::-1] == rows_of(output)[row["image_id"]].mask.shape  # type: ignore[union-attr]


def test_linked_photographs_are_links_unless_they_had_to_be_turned(output: Path, photos: Path, tmp_path: Path) -> None:
    counts = run(output, tmp_path / "e", "png", images="link").counts
    assert (counts.linked, counts.turned) == (4, 1)
    for row in pq.read_table(tmp_path / "e/names.parquet").to_pylist():
        place = tmp_path / "e" / row["image"]
        assert place.is_symlink() == (row["image_id"] != "turned.jpg")
        assert place.is_file()


def test_masks_are_exported_alone_if_the_photographs_are_gone(photos: Path, tmp_path: Path) -> None:
    from tests import here

    moved = Path(shutil.copytree(photos, tmp_path / "in"))
    here.run(here.spec([str(moved)], tmp_path / "out", max_error_fraction=1))
    moved.rename(tmp_path / "elsewhere")
    counts = run(tmp_path / "out", tmp_path / "alone", "png", images="copy").counts
    assert counts.images == 5
    assert not (tmp_path / "alone/images").exists()
    with pytest.raises(SpecError, match="yolo-semantic: needs the images, and they are not available"):
        run(tmp_path / "out", tmp_path / "yolo", "yolo-semantic")
    assert not (tmp_path / "yolo").exists()
    run(tmp_path / "out", tmp_path / "with", "png", images="copy", inputs=[str(tmp_path / "elsewhere")])
    assert len(list((tmp_path / "with/images").rglob("*.jpg"))) == 5


def test_some_images_are_exported_by_their_ids(output: Path, tmp_path: Path) -> None:
    chosen = sorted(rows_of(output))[1:3]
    assert run(output, tmp_path / "e", "png", image_ids=chosen).counts.images == 2
    assert sorted(pq.read_table(tmp_path / "e/names.parquet")["image_id"].to_pylist()) == chosen


def test_a_compacted_output_gives_the_same_masks_and_is_another_export(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    run(copy, tmp_path / "before", "png")
    assert compact(str(copy)).files_after == 1
    with pytest.raises(PlanError, match="`segbatch compact` has changed the output since"):
        run(copy, tmp_path / "before", "png")
    run(copy, tmp_path / "after", "png")
    assert tree(tmp_path / "after/masks") == tree(tmp_path / "before/masks")


def test_more_classes_than_a_format_holds_are_refused_before_any_work(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    record = json.loads((copy / "run.json").read_text())
    record["classes"] += [{"id": i, "name": f"class {i}", "color": [0, 0, i % 256]} for i in range(3, 300)]
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(SpecError, match=r"yolo-semantic: holds at most 255 classes, the export has 300; select some"):
        run(copy, tmp_path / "e", "yolo-semantic")
    assert not (tmp_path / "e").exists()
    run(copy, tmp_path / "e", "png")
    for mask in (tmp_path / "e/masks").rglob("*.png"):
        assert cv2.imread(str(mask), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_16_bit_masks_are_the_same_for_pillow_and_opencv() -> None:
    mask = np.arange(0, 65_536, 997, dtype=np.uint16).reshape(6, 11)
    data = gray_png(mask)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), mask)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), mask)


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("pgn", {}, "unknown export format 'pgn'; did you mean 'png'?"),
        ("png", {"instances": True}, "--instances: png has no instances; formats that do: coco-rle"),
        ("png", {"split": "../x"}, "--split: got '../x'"),
        ("png", {"void_below": 2.0}, "--void-below: got 2.0; a confidence is from 0 to 1"),
        ("png", {"images": "all"}, "--images: got 'all'; give none, copy or link"),
        ("png", {"image_ids": ["nobody.jpg"]}, "--image-ids: 'nobody.jpg' is in no row with a mask"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(
    output: Path, tmp_path: Path, to: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        run(output, tmp_path / "e", to, **options)
    assert message in str(caught.value)
    assert not (tmp_path / "e").exists()
