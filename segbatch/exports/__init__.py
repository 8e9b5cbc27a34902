"""Exports: the masks of an output as files that other tools read, one file per format."""

from __future__ import annotations

from segbatch.exports.coco import CocoRleFormat
from segbatch.exports.coco_panoptic import CocoPanopticFormat
from segbatch.exports.format import Format
from segbatch.exports.huggingface import HuggingFaceFormat
from segbatch.exports.png import PngFormat
from segbatch.exports.webdataset import WebDatasetFormat
from segbatch.registry import Registry

EXPORTS: Registry[Format] = Registry("export format")
EXPORTS.add("png", PngFormat())
EXPORTS.add("coco-rle", CocoRleFormat())
EXPORTS.add("coco-panoptic", CocoPanopticFormat())
EXPORTS.add("huggingface", HuggingFaceFormat())
EXPORTS.add("webdataset", WebDatasetFormat())
