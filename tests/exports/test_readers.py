"""Each export is read by the tool that it is written for, and gives the same masks."""

from __future__ import annotations

import csv
import gc
import glob
import io
import json
from pathlib import Path

import cv2
import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torchvision
import webdataset
from hotcoco import panoptic
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segbatch.operations.export import export
from segbatch.results.dataset import MaskDataset
from tests.exports.conftest import rows_of

# Of the readers, about themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning"),
]


def exported(output: Path, target: Path, to: str, **options: object) -> dict[str, np.ndarray]:
    """Export, and return the masks of the output by ``names.parquet``'s column ``file``."""
    export(str(output), to=to, target=str(target), **options)  # type: ignore[arg-type]
    rows = rows_of(output)
    names = pq.read_table(target / "names.parquet").to_pylist()
    assert len(names) == len(rows)
    return {row["file"]: np.asarray(rows[row["image_id"]].mask) for row in names}


def test_png_is_the_same_for_pillow_opencv_and_torchvision(output: Path, tmp_path: Path) -> None:
    for name, mask in exported(output, tmp_path / "e", "png").items():
        path = str(tmp_path / "e/masks" / f"{name}.png")
        with Image.open(path) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), mask)
        for flag in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE):
            assert np.array_equal(cv2.imread(path, flag), mask)
        assert np.array_equal(torchvision.io.decode_image(path)[0].numpy(), mask)
    with open(tmp_path / "e/classes.csv", newline="") as f:
        assert [row["name"] for row in csv.DictReader(f)] == list(MaskDataset.open(str(output)).classes.names)


@pytest.mark.parametrize("instances", [False, True])
def test_coco_rle_is_the_same_for_pycocotools_and_a_perfect_answer_to_itself(
    output: Path, tmp_path: Path, instances: bool
) -> None:
    masks = exported(output, tmp_path / "e", "coco-rle", instances=instances)
    numbers = {row["number"]: row["file"] for row in pq.read_table(tmp_path / "e/names.parquet").to_pylist()}
    truth = COCO(str(tmp_path / "e/annotations/instances_train.json"))
    for number, image in truth.imgs.items():
        mask = masks[numbers[number]]
        assert (image["height"], image["width"]) == mask.shape
        painted = np.full(mask.shape, 255, np.uint8)
        for annotation in truth.loadAnns(truth.getAnnIds(imgIds=[number])):
            region = truth.annToMask(annotation).astype(bool)
            painted[region] = annotation["category_id"] - 1
            assert annotation["area"] == region.sum()
        assert np.array_equal(painted, mask)
    assert min(truth.anns) == 1
    evaluation = COCOeval(truth, truth.loadRes(list(truth.anns.values())), "segm")
    evaluation.params.maxDets = [10_000] * 3
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]
    assert precision[precision >= 0].min() == pytest.approx(1.0)


def test_coco_panoptic_scores_1_against_itself_and_its_ids_are_classes(output: Path, tmp_path: Path) -> None:
    masks = exported(output, tmp_path / "e", "coco-panoptic")
    path = tmp_path / "e/annotations/panoptic_train.json"
    plain = json.loads(path.read_text())
    numbers = {row["number"]: row["file"] for row in pq.read_table(tmp_path / "e/names.parquet").to_pylist()}
    for annotation in plain["annotations"]:
        with Image.open(path.with_suffix("") / annotation["file_name"]) as image:
            assert image.mode == "RGB"
            segments = np.asarray(image).astype(int) @ [1, 256, 65_536]
        assert np.array_equal(segments - 1, masks[numbers[annotation["image_id"]]])
        assert {info["id"] for info in annotation["segments_info"]} == set(np.unique(segments)) - {0}
        for info in annotation["segments_info"]:
            rows, columns = np.nonzero(segments == info["id"])
            left, top, width, height = info["bbox"]
            assert (info["area"], left, top) == (len(rows), columns.min(), rows.min())
            assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
    scores = panoptic.pq_compute(str(path), str(path))
    assert scores["All"]["pq"] == pytest.approx(1.0)


def test_huggingface_is_the_same_for_datasets(output: Path, tmp_path: Path) -> None:
    masks = exported(output, tmp_path / "e", "huggingface")
    loaded = datasets.load_dataset(str(tmp_path / "e"), split="train", cache_dir=str(tmp_path / "cache"))
    classes = list(MaskDataset.open(str(output)).classes.names)
    assert loaded.features["classes"].feature.names == classes
    assert list(json.loads((tmp_path / "e/id2label.json").read_text()).values()) == classes
    files = {r["image_id"]: r["file"] for r in pq.read_table(tmp_path / "e/names.parquet").to_pylist()}
    assert set(loaded["image_id"]) == set(files)
    for row in loaded:
        mask = masks[files[row["image_id"]]]
        assert row["mask"].mode == "L"
        assert np.array_equal(np.asarray(row["mask"]), mask)
        assert row["image"].size[::-1] == mask.shape
        assert row["classes"] == np.unique(mask).tolist()


def test_huggingface_without_photographs_has_no_such_column(output: Path, tmp_path: Path) -> None:
    export(str(output), to="huggingface", target=str(tmp_path / "e"), images="none")
    loaded = datasets.load_dataset(str(tmp_path / "e"), split="train", cache_dir=str(tmp_path / "cache"))
    assert (len(loaded), "image" in loaded.features) == (5, False)


@pytest.mark.filterwarnings("ignore:.*train-:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("corpus", ["output", "strangers"])
def test_webdataset_groups_photograph_mask_and_description(
    corpus: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = request.getfixturevalue(corpus)
    masks = exported(output, tmp_path / "e", "webdataset")
    files = {r["image_id"]: r["file"] for r in pq.read_table(tmp_path / "e/names.parquet").to_pylist()}
    tars = sorted(glob.glob(str(tmp_path / "e/train-*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    gc.collect()  # it leaves the tars open
    assert len(samples) == len(masks)
    for sample in samples:
        mask = masks[files[json.loads(sample["json"])["image_id"]]]
        with Image.open(io.BytesIO(sample["mask.png"])) as image:
            assert np.array_equal(np.asarray(image), mask)
        with Image.open(io.BytesIO(sample["jpg"] if "jpg" in sample else sample["png"])) as image:
            assert image.size[::-1] == mask.shape
