"""Inputs: one file per format. A new format is a file here, and a line below."""

from __future__ import annotations

from segbatch.sources.corpus import OutsideRoot
from segbatch.sources.formats import FORMATS
from segbatch.sources.images import Images
from segbatch.sources.manifest import Manifest
from segbatch.sources.mixed import Source, divided
from segbatch.sources.parquet import Parquet
from segbatch.sources.webdataset import WebDataset

FORMATS.add(WebDataset.name, WebDataset())
FORMATS.add(Parquet.name, Parquet())
FORMATS.add(Images.name, Images())
FORMATS.add(Manifest.name, Manifest())

__all__ = ["FORMATS", "OutsideRoot", "Source", "divided"]
