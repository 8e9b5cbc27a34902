"""Labeled images of shards, copied to a local file, which training reads in random order."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from segbatch.codecs.decode import decode
from segbatch.errors import SpecError
from segbatch.evaluation.class_map import ClassMap
from segbatch.evaluation.label_images import Label, LabelReader
from segbatch.records import Record, Shard
from segbatch.sources import Source
from segbatch.sources.tar import open_tar
from segbatch.storage.files import Files
from segbatch.training.examples import truth_of

_CHUNK = 64
_MAX_LABEL_BYTES = 2**30
_KEY = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)


class Spool:
    """Encoded images and labels in an unnamed temporary file that is deleted with the process.

    Implements ``Examples``. Thread-safe; holds 32 bytes of memory per image.
    """

    def __init__(self, classes: ClassMap, reader: LabelReader, max_pixels: int) -> None:
        self._classes, self._reader, self._max_pixels = classes, reader, max_pixels
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._end = 0
        self._places = array("q")

    def __len__(self) -> int:
        return len(self._places) // 4

    def put(self, data: bytes) -> tuple[int, int]:
        """Append bytes and return their offset and length."""
        self._file.write(data)
        self._end += len(data)
        return self._end - len(data), len(data)

    def add(self, image: tuple[int, int], label: tuple[int, int]) -> None:
        """Add an example of bytes that were ``put``."""
        self._places.extend((*image, *label))

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self.image(index)
        name, label = self.label(index)
        return image, truth_of(label.values, image, self._classes, name)

    def label(self, index: int) -> tuple[str, Label]:
        name = f"of example {index}"
        return name, self._reader.decode(self._get(4 * index + 2), name)

    def image(self, index: int) -> np.ndarray:
        return decode(self._get(4 * index), self._max_pixels)

    def _get(self, at: int) -> bytes:
        self._file.flush()
        return os.pread(self._file.fileno(), self._places[at + 1], self._places[at])


def spool(
    images: Source, labels: Source | str, classes: ClassMap, reader: LabelReader, max_pixels: int
) -> tuple[Spool, list[str]]:
    """Copy the records of shards that have a label.

    Args:
        labels: For Parquet a source of the same shards whose "images" are the labels, paired by row; for tars the
            ending of the names of label members, such as ``png`` or ``seg.png``, paired by key.

    Returns:
        The examples, and messages about records without a label and those that cannot be read.

    Raises:
        SpecError: No record has both.
        SourceError: A shard cannot be listed.
    """
    out, without, failed = Spool(classes, reader, max_pixels), 0, 0
    # The same files, listed with the column of the labels.
    planned = {} if isinstance(labels, str) else {shard.uri: shard for shard in labels.shards()}
    for shard in images.shards():
        label_of = {key: out.put(data) for key, data in _labels(planned.get(shard.uri, shard), labels, reader.files)}
        for chunk in images.chunks(shard, _CHUNK):
            for record in chunk.records:
                label = label_of.get(_key(shard, record))
                if record.data is None:
                    failed += 1
                elif label is None:
                    without += 1
                else:
                    out.add(out.put(record.data), label)
    notes = [
        f"{count} of {len(out) + without + failed} records {what}: left out"
        for count, what in ((without, "have no label"), (failed, "cannot be read"))
        if count
    ]
    if len(out) == 0:
        where = f"tar members *.{labels}" if isinstance(labels, str) else "the column of labels"
        raise SpecError(f"label_column: no record has both an image and a label in {where}")
    return out, notes


def _labels(shard: Shard, labels: Source | str, files: Files) -> Iterator[tuple[str | int, bytes]]:
    if isinstance(labels, str):
        with files.open(shard.uri) as stream:
            for member in open_tar(stream):
                name = _KEY.fullmatch(member.name.removeprefix("./"))
                if name is not None and name[2].lower() == labels.lower() and member.size <= _MAX_LABEL_BYTES:
                    yield name[1], member.read()
        return
    for chunk in labels.chunks(shard, _CHUNK):
        yield from ((record.index, record.data) for record in chunk.records if record.data is not None)


def _key(shard: Shard, record: Record) -> str | int:
    """What pairs a record with its label: the key of a sample, or the row of a file."""
    return record.index if shard.format == "parquet" else record.image_id.removeprefix(f"{shard.name}/")
