"""Masks of an export, read by the tool that it is for; a program of its own, since the tools change the process.

``python read_back.py FORMAT FOLDER OUT`` writes the masks by name as an .npz.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

Masks = Iterator[tuple[str, np.ndarray]]


def label_studio(folder: Path) -> Masks:
    """By the decoder of label-studio-sdk, whose file needs nothing of the rest. Values: 1 + position in config.xml."""
    package = importlib.util.find_spec("label_studio_sdk")
    assert package is not None
    assert package.submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        "brush", Path(package.submodule_search_locations[0]) / "converter" / "brush.py"
    )
    assert spec is not None
    assert spec.loader is not None
    brush = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(brush)
    config = ElementTree.parse(folder / "config.xml").getroot()
    labels = [label.attrib["value"] for label in config.iter("Label")]
    names = {config.find("Image").attrib["name"], config.find("BrushLabels").attrib["toName"]}  # type: ignore[union-attr]
    for file in sorted(folder.glob("tasks-*.json")):
        for task in json.loads(file.read_bytes()):
            results = task["predictions"][0]["result"]
            mask = None
            for result in results:
                assert {result["to_name"]} == names
                assert config.find(f"BrushLabels[@name='{result['from_name']}']") is not None
                # From the form of an import to that of an export, which the decoder reads.
                flat = {**result, **result["value"]}
                ((_, alpha),) = brush.decode_from_annotation("x", [flat]).items()
                if mask is None:
                    mask = np.zeros(alpha.shape, np.uint16)
                assert set(np.unique(alpha)) <= {0, 255}
                mask[alpha == 255] = 1 + labels.index(result["value"]["brushlabels"][0])
            if mask is not None:
                yield Path(unquote(task["data"]["image"].partition("?d=")[2])).with_suffix("").as_posix(), mask


def _datumaro(folder: Path, form: str) -> Masks:
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    dataset = Dataset.import_from(str(folder), form)
    labels = [label.name for label in dataset.categories()[AnnotationType.label]]
    shift = 0 if labels[0] == "background" else 1
    for item in dataset:
        mask = np.zeros(item.media.size, np.uint16)
        for annotation in item.annotations:
            mask[annotation.image.astype(bool)] = annotation.label + shift
        yield item.id, mask


def cvat(folder: Path) -> Masks:
    return _datumaro(folder, "cvat")


def coco_panoptic(folder: Path) -> Masks:
    return _datumaro(folder, "coco_panoptic")


def cvat_masks(folder: Path) -> Masks:
    return _datumaro(folder, "voc_segmentation")


def _ultralytics(folder: Path, read: Callable[[Any, int], np.ndarray]) -> Masks:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    dataset = build_yolo_dataset(get_cfg(overrides={"task": "semantic"}), data["train"], 1, data)
    root = Path(data["train"])
    for i, file in enumerate(dataset.im_files):
        yield Path(file).relative_to(root).with_suffix("").as_posix(), read(dataset, i)
    for cache in folder.rglob("*.cache"):
        cache.unlink()


def yolo_semantic(folder: Path) -> Masks:
    return _ultralytics(folder, lambda dataset, i: dataset.load_mask(i))


def yolo_seg(folder: Path) -> Masks:
    """0 is the background that Ultralytics appends, else 1 plus the class of a polygon."""

    def read(dataset: Any, i: int) -> np.ndarray:
        mask = dataset.load_mask(i, dataset.labels[i]["shape"]).astype(np.uint16)
        return mask if dataset.data["nc"] == 1 else np.where(mask == dataset.bg_class_idx, 0, mask + 1)

    return _ultralytics(folder, read)


READERS = {
    "coco-panoptic": coco_panoptic,
    "label-studio": label_studio,
    "cvat": cvat,
    "cvat-masks": cvat_masks,
    "yolo-semantic": yolo_semantic,
    "yolo-seg": yolo_seg,
}

if __name__ == "__main__":
    form, folder, out = sys.argv[1:]
    np.savez(out, **dict(READERS[form](Path(folder))))
