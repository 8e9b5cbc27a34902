"""Write one part of an export: the rows of one result file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segbatch.errors import RecordFailure
from segbatch.exports import EXPORTS
from segbatch.exports.folder import DONE, ROWS, StorePart
from segbatch.exports.format import ExportContext, ExportedImage, Format, PartCounts
from segbatch.exports.names import Names
from segbatch.exports.photographs import Photograph, local_file, upright_photograph
from segbatch.exports.selection import Selection
from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.results.originals import Original, Originals
from segbatch.results.row import MaskRow
from segbatch.storage.store import Store

_COLUMNS = ["image_id", "source", "index", "height", "width", "mask", "classes", "confidence", "error"]


@dataclass(frozen=True)
class Part:
    """A part of an export.

    Attributes:
        name: Its position among the files, as five digits.
        file: The result file.
        first: Number of its first image.
    """

    name: str
    file: ResultFile
    first: int


@dataclass(frozen=True)
class ExportJob:
    """All that a worker needs to write any part. Picklable.

    Attributes:
        originals: Reads the photographs; None without photographs.
        image_ids: The images to export; None for all.
        max_pixels: Larger photographs are not encoded again.
    """

    output: Output
    target: Store
    format: str
    context: ExportContext
    selection: Selection
    names: Names
    parts: tuple[Part, ...]
    originals: Originals | None
    image_ids: frozenset[str] | None
    max_pixels: int


def write_part(job: ExportJob, index: int) -> PartCounts | None:
    """Write a part, and record that it is complete; None if the export is complete already. Idempotent."""
    if job.target.exists(DONE):
        return None
    part = job.parts[index]
    folder = StorePart(job.target, part.name)
    rows = _PartRows(job, part, folder)
    EXPORTS[job.format].write_part(rows.images(), folder, job.context)
    counts = rows.counts()
    folder.complete(pa.Table.from_pylist(rows.rows, ROWS), counts)
    return counts


class _PartRows:
    """Reads the rows of a part, writes their photographs, and counts."""

    def __init__(self, job: ExportJob, part: Part, folder: StorePart) -> None:
        self._job, self._part, self._folder = job, part, folder
        self._format: Format = EXPORTS[job.format]
        self._counts: Counter[str] = Counter()
        self._problem = ""
        self.rows: list[dict[str, Any]] = []

    def counts(self) -> PartCounts:
        return PartCounts(**self._counts, problem=self._problem)

    def images(self) -> Iterator[ExportedImage]:
        """Yield the images, one at a time. With photographs, those of a batch are in order of the inputs."""
        number = self._part.first
        for batch in self._part.file.batches(self._job.output.store, _COLUMNS):
            rows = [MaskRow.from_dict(row, self._job.output.record.labels) for row in batch.to_pylist()]
            wanted = [row for row in rows if self._job.image_ids is None or row.image_id in self._job.image_ids]
            masks = [row for row in wanted if row.error is None]
            self._add_errors([row for row in wanted if row.error is not None])
            numbers = {row.image_id: number + i for i, row in enumerate(masks)}
            number += len(masks)
            originals = self._job.originals
            found = (Original(row, None) for row in masks) if originals is None else originals.read(masks)
            for original in found:
                if (image := self._image(original, numbers[original.row.image_id])) is not None:
                    yield image

    def _add_errors(self, rows: Sequence[MaskRow]) -> None:
        self._counts["errors"] += len(rows)
        self.rows += [{"image_id": row.image_id, **vars(row.error)} for row in rows if row.error is not None]

    def _image(self, original: Original, number: int) -> ExportedImage | None:
        row, name = original.row, self._job.names.name_of(original.row.image_id)
        photograph = self._photograph(original)
        if photograph is None and self._format.needs_images:
            self._counts["left_out"] += 1
            self.rows.append(
                {"image_id": row.image_id, "stage": "export", "type": "NoPhotograph", "message": original.problem}
            )
            return None
        assert row.mask is not None
        file = None if photograph is None else self._place(original, photograph, name)
        selected = self._job.selection.apply(row.mask, row.classes)
        self._counts.update(images=1, voided=selected.voided, small=selected.small)
        self.rows.append({"image_id": row.image_id, "file": name, "number": number, "image": file})
        return ExportedImage(
            number=number,
            name=name,
            image_id=row.image_id,
            mask=selected.mask,
            classes=selected.classes,
            confidence=row.confidence,
            image=None if photograph is None else photograph.data,
            image_file=file,
        )

    def _photograph(self, original: Original) -> Photograph | None:
        if self._job.originals is None:
            return None
        problem = original.problem
        if original.data is not None:
            try:
                return upright_photograph(original.data, self._job.max_pixels)
            except RecordFailure as e:
                problem = str(e)
        self._counts["missing"] += 1
        self._problem = self._problem or problem
        return None

    def _place(self, original: Original, photograph: Photograph, name: str) -> str:
        """Copy or link a photograph into the folder of the format, if it has one; return its path."""
        self._counts["turned"] += photograph.is_turned
        if self._format.image_folder is None:
            return f"{name}{photograph.extension}"
        path = f"{self._format.image_folder.format(split=self._job.context.split)}/{name}{photograph.extension}"
        if self._job.context.images == "link" and not photograph.is_turned:
            file = local_file(original.row.source, photograph.data)
            if file is not None:
                self._job.target.link(path, file)
                self._counts["linked"] += 1
                return path
        self._folder.write(path, photograph.data)
        return path
