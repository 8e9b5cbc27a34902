"""One image of an output as a picture: the image, its mask, and its classes."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segbatch.codecs import mask_png
from segbatch.codecs.decode import decode
from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.records import Preview
from segbatch.report.contact_sheet import Row, cells, contact_sheet, side_by_side
from segbatch.results.dataset import MaskDataset
from segbatch.results.row import MaskRow
from segbatch.text import counted, redact

_SIDE = 480
_SIGNATURE = "segbatch show"
_SEARCHED_IDS, _COUNTED_IDS, _NAMED_IDS = 100_000, 1000, 5
_PREVIEW_PIXELS = 10**6


@dataclass(frozen=True)
class Shown:
    """One row of an output, and its picture.

    Attributes:
        row: The row.
        columns: Headings of the panels; none for an error row.
        panels: The panels as a row of a contact sheet; None for an error row.
        problem: Why the image is not shown, or only its preview is, one line; empty if it is.
        network: Name of the network.
        refiner: Name of the refiner.
    """

    row: MaskRow
    columns: tuple[str, ...] = ()
    panels: Row | None = field(default=None, repr=False)
    problem: str = ""
    network: str = ""
    refiner: str = ""

    @property
    def labels(self) -> LabelSet:
        """Names and colors of the output's classes."""
        return self.row.labels

    @property
    def summary(self) -> str:
        """Size, confidence, network and refiner in one line."""
        size = f"{self.row.width} x {self.row.height} pixels"
        return f"{size}, confidence {self.row.confidence or 0:.3f}, {self.network}, refiner {self.refiner}"

    def strip(self) -> Image.Image | None:
        """Return the panels side by side, without text; None for an error row."""
        return None if self.panels is None else side_by_side(cells(self.panels, self.labels))

    def sheet(self) -> Image.Image | None:
        """Return the panels with headings and the table of classes; None for an error row."""
        if self.panels is None:
            return None
        return contact_sheet(
            [self.panels],
            self.columns,
            self.labels,
            width=self.panels.image.shape[1],
            title=(self.row.image_id, self.summary),
            counts=self.row.classes,
        )

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG.

        Raises:
            SpecError: The row is an error, the folder does not exist, or another program wrote the file.
        """
        sheet = self.sheet()
        if sheet is None:
            raise SpecError(f"{self.row.image_id}: is an error row without a mask; there is no picture to write")
        note = PngInfo()
        note.add_text("Software", _SIGNATURE)
        try:
            if path.exists() and _SIGNATURE.encode() not in path.read_bytes():
                raise SpecError(f"{path}: exists, and is not a picture of `segbatch show`; choose another --to")
            sheet.save(path, "PNG", pnginfo=note)
        except OSError as e:
            raise SpecError(f"{path}: cannot be written: {e.strerror or e}; choose another --to") from None


def show(
    output: str,
    image_id: str,
    *,
    inputs: Sequence[str] | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Shown:
    """Find one image in an output, and read it again from the inputs.

    If the image is not available, its preview is shown; without a preview the mask alone.

    Args:
        output: The output of a run.
        image_id: Its id, or the end of it after a ``/`` if only one id ends so.
        inputs: Where the inputs are now, if they were moved.
        storage_options: Options for fsspec.

    Raises:
        SpecError: No image, or more than one, has the id.
        SegbatchError: The output cannot be read.
    """
    dataset = MaskDataset.open(output, inputs=inputs, storage_options=storage_options)
    row = _find(dataset, image_id)
    network, refiner = redact(str(dataset.record.spec["model"])), str(dataset.record.spec["refiner"])
    if row.mask is None:
        return Shown(row, network=network, refiner=refiner)
    preview = next((p for p in dataset.output.previews() if p.image_id == row.image_id), None)
    (read,) = dataset.images.read([row])
    pixels, problem = read.pixels, read.problem
    if pixels is None:
        problem += "; shown is " + ("the mask alone" if preview is None else "the preview of the run")
        pixels = None if preview is None else decode(preview.photograph, _PREVIEW_PIXELS)
    columns, panels = _panels(row, pixels, preview if refiner != "none" else None, refiner)
    return Shown(row, columns, panels, problem, network, refiner)


def _panels(
    row: MaskRow, pixels: np.ndarray | None, preview: Preview | None, refiner: str
) -> tuple[tuple[str, ...], Row]:
    """Return the headings and the panels, all of one size."""
    assert row.mask is not None
    height, width = row.mask.shape
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if pixels is None:
        colors = row.mask_image().resize(size, Image.Resampling.NEAREST)
        return ("mask",), Row(row.image_id, np.asarray(colors), ())
    image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3))
    mask = _resized(row.mask, size)
    if preview is None:
        return ("image", "mask"), Row(row.image_id, image, (mask,))
    network = _resized(mask_png.decode(preview.network), size)
    return ("image", "network", f"after {refiner}"), Row(row.image_id, image, (network, mask))


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask at another size (width, height), each pixel with the class of the nearest one."""
    rows = (np.arange(size[1]) + 0.5) * mask.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * mask.shape[1] / size[0]
    return mask[rows.astype(np.intp)[:, None], columns.astype(np.intp)]


def _find(dataset: MaskDataset, image_id: str) -> MaskRow:
    try:
        return dataset[image_id]
    except KeyError:
        pass
    suffix = f"/{image_id.lstrip('/')}"
    ends = pc.ends_with(pc.field("image_id"), suffix)
    batches = dataset.output.batches(["image_id"], ends)
    every = itertools.chain.from_iterable(batch["image_id"].to_pylist() for batch in batches)
    ids = list(itertools.islice(every, _COUNTED_IDS + 1))
    if len(ids) == 1:
        return dataset[ids[0]]
    if ids:
        count = counted(min(len(ids), _COUNTED_IDS), "image")
        count = count if len(ids) <= _COUNTED_IDS else f"more than {count}"
        named = ", ".join(ids[:_NAMED_IDS]) + (", …" if len(ids) > _NAMED_IDS else "")
        raise SpecError(f"{image_id}: {count} of {dataset.output.uri} end with {suffix}: {named}; give the whole id")
    raise SpecError(f"{image_id}: no image of {dataset.output.uri} has this id; {_near(dataset, image_id)}")


def _near(dataset: MaskDataset, image_id: str) -> str:
    """Return the nearest of the first ids, as a hint."""
    batches = dataset.output.batches(["image_id"])
    every = itertools.chain.from_iterable(batch["image_id"].to_pylist() for batch in batches)
    ids = list(itertools.islice(every, _SEARCHED_IDS))
    names = {name.rpartition("/")[2].lower(): name for name in ids}
    last = image_id.rpartition("/")[2].lower()
    if near := difflib.get_close_matches(last, names, n=1, cutoff=0.6):
        return f"did you mean {names[near[0]]!r}?"
    return f"ids are such as {ids[0]!r}" if ids else "it has no rows"
