"""Exports: the masks of an output as files that other tools read, one file per format."""

from __future__ import annotations

from segbatch.exports.coco import CocoRleFormat
from segbatch.exports.coco_panoptic import CocoPanopticFormat
from segbatch.exports.cvat import CvatFormat
from segbatch.exports.cvat_masks import CvatMasksFormat
from segbatch.exports.fiftyone import FiftyOneFormat
from segbatch.exports.format import Format
from segbatch.exports.huggingface import HuggingFaceFormat
from segbatch.exports.label_studio import LabelStudioFormat
from segbatch.exports.png import PngFormat
from segbatch.exports.webdataset import WebDatasetFormat
from segbatch.exports.yolo_seg import YoloSegFormat
from segbatch.exports.yolo_semantic import YoloSemanticFormat
from segbatch.registry import Registry

EXPORTS: Registry[Format] = Registry("export format")
EXPORTS.add("png", PngFormat())
EXPORTS.add("coco-rle", CocoRleFormat())
EXPORTS.add("coco-panoptic", CocoPanopticFormat())
EXPORTS.add("huggingface", HuggingFaceFormat())
EXPORTS.add("webdataset", WebDatasetFormat())
EXPORTS.add("label-studio", LabelStudioFormat())
EXPORTS.add("cvat", CvatFormat())
EXPORTS.add("cvat-masks", CvatMasksFormat())
EXPORTS.add("yolo-semantic", YoloSemanticFormat())
EXPORTS.add("yolo-seg", YoloSegFormat())
EXPORTS.add("fiftyone", FiftyOneFormat())
