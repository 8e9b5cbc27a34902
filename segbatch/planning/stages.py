"""The stages as the workers run them, built from a job. Knows nothing of Ray: a process without it builds them too."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from segbatch import models, refiners
from segbatch.errors import NetworkError
from segbatch.models.scores import sample_images
from segbatch.planning.job import Job
from segbatch.planning.pools import Pools
from segbatch.protocols import Model, Stage
from segbatch.records import Chunk, ChunkId, Record, Scores
from segbatch.stages.canary import SelfChecking
from segbatch.stages.refine import Refine
from segbatch.stages.segment import Segment
from segbatch.text import redact

_CHANGED = "changed since the job was planned"
_REMEDY = (
    "the same files must be on every machine, and stay as they are until the job is done; run the same command again"
)


def segment_stage(job: Job, pools: Pools) -> Stage:
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
    _refuse_changed(job, model)
    segment = Segment(
        model,
        max_pixels=spec.max_pixels,
        prune=job.prune,
        keep_images=job.refiner.needs_image,
        threads=pools.threads,
    )
    # A network that goes by ids need not know those of the sample images.
    proven = not (job.model.wrong_size or job.model.untried or job.model.needs_ids)
    return SelfChecking("segment", f"network {spec.model}", segment, _samples(), is_trusted=proven)


def refine_stage(job: Job, pools: Pools) -> Stage:
    """Refine, encode, count."""
    spec = job.spec
    refiner = refiners.build(job.refiner.request)
    if (loaded := refiner.parameters) != job.refiner.parameters:
        raise NetworkError(
            f"{_CHANGED}: refiner {spec.refiner}, refiner_weights {redact(spec.refiner_weights or '')!r}: planned "
            f"{job.refiner.parameters}, loaded {loaded}; {_REMEDY}"
        )
    refine = Refine(
        refiner,
        job.model.labels,
        max_pixels=spec.max_pixels,
        temperature=job.model.temperature,
        has_marginal=spec.marginal,
        threads=pools.threads,
    )
    return SelfChecking("refine", f"refiner {spec.refiner}", refine, _samples(job.model), is_trusted=True)


def _refuse_changed(job: Job, model: Model) -> None:
    """Raise ``NetworkError`` if ``model``, as it was loaded here, is another one than the job was planned with."""
    planned, spec = job.model, job.spec
    pairs = {
        f"weights {redact(spec.weights)!r} and their network": (planned.digest, model.digest),
        f"classes {redact(spec.classes or '')!r}": (planned.labels.names, model.labels.names),
        f"colors of classes {redact(spec.classes or '')!r}": (planned.labels.colors, model.labels.colors),
        "stride": (planned.stride, model.stride),
    }
    differ = [f"{what}: planned {before}, loaded {now}" for what, (before, now) in pairs.items() if before != now]
    if differ:
        raise NetworkError(f"{_CHANGED}: model {spec.model}, {'; '.join(differ)}; {_REMEDY}")


def _samples(scored_by: models.ModelInfo | None = None) -> Chunk:
    """The sample images as a chunk; with scores in which all classes are equal, if it is for after the network."""
    records = []
    for index, image in enumerate(sample_images()):
        height, width = image.shape[:2]
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        scores = None
        if scored_by is not None:
            classes, stride = np.arange(len(scored_by.labels), dtype=np.int16), scored_by.stride
            values = np.zeros((len(classes), -(-height // stride), -(-width // stride)), np.float16)
            scores = Scores(values, classes, height, width, stride)
        records.append(Record(f"sample image {index + 1}", "sample", index, data.getvalue(), scores, height, width))
    return Chunk(ChunkId("sample", 0, True), records)
