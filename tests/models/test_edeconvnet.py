"""EDeconvNet: against a literal NumPy version of it; its proposals, its file of weights, and a job's stage with it."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from segbatch import models
from segbatch.crf.params import CRFSettings
from segbatch.errors import ModelError, RecordFailure, SpecError
from segbatch.labels import VOC_LABELS, LabelSet
from segbatch.models.catalog import edeconvnet as catalog
from segbatch.models.info import DeviceOptions, ModelRequest
from segbatch.models.zoo import edeconvnet, proposals
from segbatch.models.zoo.edeconvnet import EDeconvNet
from segbatch.models.zoo.proposals import FileProposals, clipped, grid
from segbatch.records import Chunk, ChunkId, Record
from segbatch.refiners.densecrf import DenseCRFRefiner
from segbatch.stages.segment import Segment
from tests.models.contract import photo
from tests.models.narrow import NARROW

BOXES = np.array([[10, 20, 100, 60], [0, 0, 120, 160], [40, 50, 300, 300], [100, 130, 7, 9], [-5, -5, 30, 30]])


@pytest.fixture(autouse=True)
def narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DECONVNET", "FCN8S"):
        entry = getattr(catalog, name)
        monkeypatch.setattr(catalog, name, replace(entry, network=partial(entry.network, narrow=NARROW)))


@pytest.fixture
def model() -> EDeconvNet:
    return models.build("edeconvnet", weights="random:2", device="cpu", threads=2)  # type: ignore[return-value]


def triangles(size: int, length: int) -> np.ndarray:
    """Weights (size, length) of linear interpolation over all pixels that a new one stands for."""
    scale = length / size
    support = max(1.0, scale)
    centers = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centers[:, None]) / support)
    return weights / weights.sum(axis=1, keepdims=True)


def literal(model: EDeconvNet, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The paper's inference, a box and a pixel at a time, of the scores that the two networks give."""
    height, width = image.shape[:2]
    best = np.zeros((21, height, width))
    for top, left, h, w in boxes.tolist():
        t, l, b, r = max(top, 0), max(left, 0), min(top + h, height), min(left + w, width)  # noqa: E741
        (scores,) = model.deconvnet.scores([edeconvnet._scaled(image[t:b, l:r])])
        back = triangles(b - t, 224) @ scores @ triangles(r - l, 224).T
        for y in range(t, b):
            best[:, y, l:r] = np.maximum(best[:, y, l:r], back[:, y - t])
    (whole,) = model.fcn.scores([image])
    return best * np.where(whole > 0, whole, 0)


@pytest.mark.parametrize("size", [(100, 60), (500, 375), (224, 224), (7, 300), (1, 1)])
def test_boxes_are_scaled_linearly_over_all_their_pixels(size: tuple[int, int]):
    """Pillow keeps bytes between the two directions; unpooling would make much of a byte that rounds otherwise."""
    image = photo(*size)
    across = np.einsum("xc,hck->hxk", triangles(224, size[1]), image.astype(float))
    expected = np.einsum("yh,hxk->yxk", triangles(224, size[0]), across)
    assert np.abs(edeconvnet._scaled(image) - expected).max() <= 1.01


@pytest.mark.parametrize("most", [50, 2])
def test_scores_are_those_of_the_literal_version(model: EDeconvNet, most: int):
    image = photo(120, 160)
    model.most, model.proposals = most, lambda image, image_id: BOXES
    (scores,) = model.scores([image])
    expected = literal(model, image, BOXES[:most])
    assert scores.shape == (21, 120, 160)
    assert scores.dtype == np.float32
    assert (expected > 0).any()
    assert np.abs(scores - expected).max() < 1e-4 * expected.max()


def test_where_no_box_is_no_class_is_preferred(model: EDeconvNet):
    model.proposals = lambda image, image_id: BOXES[:1]
    (scores,) = model.scores([photo(120, 160)])
    outside = np.ones((120, 160), bool)
    outside[10:110, 20:80] = False
    assert (scores[:, outside] == 0).all()
    assert (scores[:, ~outside] > 0).any()


def test_the_grid_covers_the_image_with_squares_coarse_to_fine():
    for height, width in [(375, 500), (500, 375), (1, 1), (3, 700), (224, 224), (50, 51)]:
        boxes = grid(height, width, 50)
        assert boxes[0].tolist() == [0, 0, height, width]
        assert 1 <= len(boxes) <= 50
        assert (boxes >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= (height, width)).all()
        for side in set(boxes[1:, 2].tolist()):
            seen = np.zeros((height, width), bool)
            for t, l, h, w in boxes[1:][boxes[1:, 2] == side]:  # noqa: E741
                assert h == w
                seen[t : t + h, l : l + w] = True
            assert seen.all()
    assert len(grid(375, 500, 50)) > 20
    assert len(grid(375, 500, 10)) == 9  # the next size would come to more
    assert len(grid(375, 500, 1)) == 1


def _files(folder: Path) -> Iterator[Path]:
    rows = [("b/2", *BOXES[0], 0.1), ("a/1", *BOXES[1], 0.5), ("b/2", *BOXES[2], 0.9)]
    names = ["image_id", "top", "left", "height", "width", "score"]
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
    pq.write_table(table, folder / "boxes.parquet")
    yield folder / "boxes.parquet"
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    yield folder / "boxes.csv"
    of_b = [BOXES[2].tolist(), BOXES[0].tolist()]
    (folder / "boxes.json").write_text(json.dumps({"b/2": of_b, "a/1": [BOXES[1].tolist()]}))
    yield folder / "boxes.json"


def test_proposals_out_of_files_are_the_best_first(tmp_path: Path):
    for path in _files(tmp_path):
        found, data = proposals.read_proposals(str(path))
        assert data == path.read_bytes()
        found = pickle.loads(pickle.dumps(found))
        assert found(photo(9, 9), "b/2").tolist() == BOXES[[2, 0]].tolist(), path
        assert found(photo(9, 9), "a/1").tolist() == BOXES[[1]].tolist()
        with pytest.raises(RecordFailure, match="no boxes for image_id 'c'") as caught:
            found(photo(9, 9), "c")
        assert (caught.value.stage, caught.value.type) == ("segment", "NoProposals")
        with pytest.raises(ValueError, match=r"call scores\(images, ids\)"):
            found(photo(9, 9), None)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("b.txt", b"", r"unknown kind of file; give one of \.parquet \.csv \.json"),
        ("b.json", b"[1]", "JSON that is a list"),
        ("b.json", b'{"a": [[1, 2, 3]]}', "not four numbers"),
        ("b.json", b'{"a": [[1, 2, 0, 4]]}', r"row 0 is \[1, 2, 0, 4\]"),
        ("b.json", b"[" * 100_000, "cannot be read"),
        ("b.json", b'{"a": 3}', "cannot be read"),
        ("b.json", b'{"a": [["x", 2, 3, 4]]}', "column top is not a number"),
        ("b.csv", b"image_id,top,left\na,1,2\n", "lack height, width; the columns are image_id, top, left"),
        ("b.csv", b"image_id,top,left,height,width\na,1,2,3,nan\n", "column width is not a number"),
        ("b.csv", b"image_id,top,left,height,width\na,1,2,3,4e12\n", "row 0 is"),
        ("b.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_files_that_hold_no_proposals_are_refused(name: str, data: bytes, says: str):
    with pytest.raises(ModelError, match=says) as caught:
        FileProposals(data, name)
    assert name in str(caught.value)


def test_boxes_are_cut_off_at_the_border():
    assert clipped(BOXES, 120, 160, 50).tolist() == [
        [10, 20, 100, 60], [0, 0, 120, 160], [40, 50, 80, 110], [100, 130, 7, 9], [0, 0, 25, 25]]  # fmt: skip
    assert len(clipped(BOXES, 120, 160, 2)) == 2
    with pytest.raises(RecordFailure, match="none of its 1 boxes meets the image of 5 x 6"):
        clipped(BOXES[:1], 5, 6, 50)
    with pytest.raises(ValueError, match=r"give integers \(N, 4\)"):
        clipped(BOXES.astype(float), 5, 6, 50)


def _config(folder: Path, **fields: object) -> str:
    path = folder / "ensemble.yaml"
    path.write_text(yaml.safe_dump({"deconvnet": "random:1", "fcn8s": "random:2", **fields}))
    return str(path)


def test_a_file_names_both_networks_and_the_proposals(tmp_path: Path):
    list(_files(tmp_path))
    weights = _config(tmp_path, proposals="boxes.csv", most=7)
    info = models.describe("edeconvnet", weights=weights)
    model = models.build("edeconvnet", weights=weights, device="cpu")
    assert isinstance(model, EDeconvNet)
    assert (info.labels, info.stride, info.digest) == (model.labels, model.stride, model.digest)
    assert model.most == 7
    image = photo(120, 160)
    (by_file,) = model.scores([image], ["b/2"])
    assert np.array_equal(by_file, EDeconvNet(model.deconvnet, model.fcn, lambda *_: BOXES[[2, 0]]).scores([image])[0])
    digests = {info.digest}
    for fields in ({"proposals": "boxes.json", "most": 7}, {"most": 7}, {}, {"deconvnet": "random:9"}):
        digests.add(models.describe("edeconvnet", weights=_config(tmp_path, **fields)).digest)
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"deconvnet": None}, "deconvnet is None; give the path or URI"),
        ({"fcn": "x"}, "unknown key 'fcn'; did you mean 'fcn8s'"),
        ({"most": 0}, "most is 0"),
        ({"most": True}, "most is True"),
        ({"proposals": 3}, "proposals is 3"),
        ({"proposals": "none.csv"}, "there is no such file"),
        ({"fcn8s": "none.pth"}, "there is no such file"),
    ],
)
def test_a_file_that_is_wrong_says_what(tmp_path: Path, fields: dict[str, object], says: str):
    with pytest.raises((SpecError, ModelError), match=says):
        models.describe("edeconvnet", weights=_config(tmp_path, **fields))


def test_weights_of_one_network_are_not_enough(tmp_path: Path):
    for weights in ("default", "w.caffemodel"):
        with pytest.raises(SpecError, match=r"made of two networks.*deconvnet: DeconvNet\.caffemodel, fcn8s:"):
            models.describe("edeconvnet", weights=weights)
    one = catalog.DECONVNET.build(ModelRequest("random"), DeviceOptions("cpu"))
    other = catalog.FCN8S.build(ModelRequest("random"), DeviceOptions("cpu"))
    other.labels = LabelSet.of(["a", "b"])
    with pytest.raises(ModelError, match=r"must have the same classes; deconvnet has 21 .*, fcn8s 2 \(a, b\)"):
        EDeconvNet(one, other)
    assert VOC_LABELS.names == one.classes


def test_a_job_gives_each_image_its_own_boxes_and_the_crf_refines_it(model: EDeconvNet):
    """Also when one image of a batch has none: it alone is an error row."""
    asked = []

    def boxes(image: np.ndarray, image_id: str | None) -> np.ndarray:
        asked.append((image_id, image.shape[:2]))
        if image_id == "s/1":
            raise RecordFailure("segment", "NoProposals", "none")
        return BOXES[:2]

    model.proposals = boxes
    records = []
    for n in range(3):
        out = io.BytesIO()
        Image.fromarray(photo(120, 160 + n, n)).save(out, "PNG")
        records.append(Record(f"s/{n}", "s", n, out.getvalue()))
    stage = Segment(model, max_pixels=10**6, prune=1e-3, keep_images=True)
    done = stage(Chunk(ChunkId("s", 0, True), records)).records
    assert [r.error.type if r.error else r.scores.stride for r in done] == [1, "NoProposals", 1]  # type: ignore[union-attr]
    assert {(f"s/{n}", (120, 160 + n)) for n in range(3)} == set(asked)
    params = CRFSettings(5, 20, 3, 3, 3, 10)
    assert done[0].scores is not None
    mask, marginal = DenseCRFRefiner(params).refine(photo(120, 160), done[0].scores)
    assert mask.shape == marginal.shape == (120, 160)
    assert np.isfinite(marginal).all()
