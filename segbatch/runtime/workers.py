"""The stages as the workers run them, built from a job. Knows nothing of Ray: a process without it builds them too."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from segbatch import models, refiners
from segbatch.chunk import Chunk, ChunkId, Record, Scores
from segbatch.output.schema import Result
from segbatch.runtime.planning import Job
from segbatch.runtime.resources import Pools
from segbatch.runtime.stages import Refine, Segment
from segbatch.runtime.watch import Watch

Item = TypeVar("Item")
# One item a record, in order, and the seconds of each stage so far.
Items = tuple[list[Item], dict[str, float]]

_SIDE = 64


@dataclass(frozen=True)
class Stage(Generic[Item]):
    """What a worker does with a chunk. ``canary`` is a chunk that cannot be at fault if the stage does not survive it.

    ``refuse`` makes the item of a record that has an ``error``.
    """

    name: str
    run: Callable[[Chunk, Watch], Items[Item]]
    refuse: Callable[[Record], Item]
    canary: Chunk


def segment_stage(job: Job, pools: Pools) -> Stage[Record]:
    """Decode and score, with the network in this process."""
    spec = job.spec
    model = models.build(
        spec.model,
        weights=spec.weights,
        classes=spec.classes,
        device=pools.device if spec.device == "auto" else spec.device,
        precision=job.precision,
        batch_size=spec.batch_size,
        threads=pools.threads,
        storage_options=spec.storage_options,
    )
    segment = Segment(
        model,
        max_pixels=spec.max_pixels,
        prune=spec.prune,
        keep_images=job.refiner.needs_image,
        threads=pools.threads,
    )

    def run(chunk: Chunk, watch: Watch) -> Items[Record]:
        scored = segment(chunk, watch)
        return scored.records, scored.timings

    return Stage("segment", run, lambda record: record, _canary(None))


def refine_stage(job: Job, pools: Pools) -> Stage[Result]:
    """Refine, encode, count."""
    spec = job.spec
    refine = Refine(refiners.build(spec), job.model.labels, max_pixels=spec.max_pixels, threads=pools.threads)
    cells = -(-_SIDE // job.model.stride)
    classes = np.arange(len(job.model.labels), dtype=np.int16)
    scores = Scores(np.zeros((len(classes), cells, cells), np.float16), classes, _SIDE, _SIDE, job.model.stride)
    return Stage("refine", refine, Result, _canary(scores))


def _canary(scores: Scores | None) -> Chunk:
    png = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), (127, 127, 127)).save(png, "PNG")
    record = Record("canary", "canary", 0, png.getvalue(), scores, _SIDE, _SIDE)
    return Chunk(ChunkId("canary", 0, True), [record])
