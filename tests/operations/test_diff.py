"""Two outputs compared image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import segbatch
from segbatch.errors import SpecError
from segbatch.evaluation.agreement import CommonClasses
from segbatch.operations.compact import compact
from segbatch.operations.diff import diff
from segbatch.results.dataset import MaskDataset
from segbatch.results.join import Join
from tests import here
from tests.corpus import photographs, write_folder

BROKEN = ("page.jpg", b"<html>gone</html>")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a``: 9 masks, an error. ``faded``: the same inputs. ``reordered``: other classes, and two other images."""
    folder, images = tmp_path_factory.mktemp("diff"), photographs(10, side=48)
    one = [str(write_folder(folder / "in", [*images[:9], BROKEN]))]
    two = [str(write_folder(folder / "other", [*images[1:9], (BROKEN[0], images[0][1]), ("new.jpg", images[9][1])]))]
    here.run(here.spec(one, folder / "a", chunk_size=2))
    here.run(here.spec(one, folder / "faded", model="tests.networks:Faded", chunk_size=3))
    here.run(here.spec(two, folder / "reordered", model="tests.networks:Reordered"))
    return folder


def masks(output: Path) -> dict[str, np.ndarray]:
    return {row.image_id: row.mask for row in MaskDataset.open(str(output)) if row.mask is not None}


def test_an_output_agrees_with_itself_also_compacted(outputs: Path, tmp_path: Path) -> None:
    images = write_folder(tmp_path / "in", photographs(9, side=48))
    here.run(here.spec([str(images)], tmp_path / "b", chunk_size=3))
    compact(str(tmp_path / "b"))
    found = segbatch.diff(str(outputs / "a"), str(tmp_path / "b"))
    assert (found.images, found.equal, found.pixel_agreement, found.mean_iou) == (9, 9, 1.0, 1.0)
    assert (found.changed, found.only_a, found.only_b) == ((), 1, 0)
    assert found.confusion.sum() == sum(mask.size for mask in masks(outputs / "a").values())


def test_the_confusion_is_that_of_the_decoded_masks(outputs: Path) -> None:
    found = diff(str(outputs / "a"), str(outputs / "faded"), images=3)
    a, b = masks(outputs / "a"), masks(outputs / "faded")
    for i in range(3):
        for j in range(3):
            assert found.confusion[i, j] == sum(int(((a[n] == i) & (b[n] == j)).sum()) for n in a)
    assert (found.images, found.errors_both, found.errors_only_a) == (9, 1, 0)
    changed = {name: float((a[name] != b[name]).mean()) for name in a}
    worst = sorted(changed, key=lambda name: (-changed[name], name))[:3]
    assert [image.image_id for image in found.changed] == worst
    assert [image.changed for image in found.changed] == [pytest.approx(changed[name]) for name in worst]
    assert 0 < found.mean_iou < found.pixel_agreement < 1
    back = diff(str(outputs / "faded"), str(outputs / "a"))
    assert (back.confusion == found.confusion.T).all()


def test_what_is_in_one_of_them_alone_is_counted_and_named(outputs: Path) -> None:
    found = diff(str(outputs / "a"), str(outputs / "reordered"))
    assert (found.images, found.only_a, found.only_b, found.errors_only_a, found.errors_both) == (8, 1, 1, 1, 0)
    assert found.classes.names == ("dark", "middle", "bright", "gray", "none")
    assert (found.classes.only_a, found.classes.only_b) == (("middle",), ("gray", "none"))
    notes = "\n".join(found.notes)
    for part in ("only in A: 1 image, such as 0000-", "only in B: 1 image, such as new.jpg", "an error in A alone: 1"):
        assert part in notes
    a, b = masks(outputs / "a"), masks(outputs / "reordered")
    common = CommonClasses(*(MaskDataset.open(str(outputs / name)).classes for name in ("a", "reordered")))
    both = sorted(set(a) & set(b))
    wanted = sum(int((a[name] == common.ids_of_b[b[name]]).sum()) for name in both)
    assert np.trace(found.confusion) == wanted
    plain = found.to_json()
    assert [row["name"] for row in plain["classes"]] == list(found.classes.names)
    assert plain["classes"][4]["iou"] is None


def test_masks_of_another_size_are_not_compared_and_outputs_without_a_common_image_are_refused(
    outputs: Path, tmp_path: Path
) -> None:
    images = photographs(2, side=48)
    (large, data), *_ = photographs(1, side=64)
    here.run(here.spec([str(write_folder(tmp_path / "in", [(large, data), images[1]]))], tmp_path / "large"))
    found = diff(str(outputs / "a"), str(tmp_path / "large"))
    assert (found.images, found.other_size, found.only_a) == (1, 1, 8)
    here.run(here.spec([str(write_folder(tmp_path / "in2", [("x.jpg", data)]))], tmp_path / "disjoint"))
    with pytest.raises(SpecError, match=r"no image in common \(A has 0.*, B x.jpg\)"):
        diff(str(outputs / "a"), str(tmp_path / "disjoint"))


def test_small_blocks_give_the_same_pairs(outputs: Path) -> None:
    a, b = (MaskDataset.open(str(outputs / name)) for name in ("a", "reordered"))
    whole, small = Join(a, b), Join(a, b, block_bytes=1)
    pairs = {(x.image_id, x.png, y.png) for x, y in whole}
    assert {(x.image_id, x.png, y.png) for x, y in small} == pairs
    assert all(x.image_id == y.image_id for x, y in Join(a, b))
    assert (small.only_a, small.only_b, small.names_a, small.names_b) == (1, 1, whole.names_a, whole.names_b)
    assert whole.names_b == ["new.jpg"]
