"""``segbatch.segment``: one image through the stages of a job, without Ray and without an output."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from segbatch import models, refiners
from segbatch.codecs import mask_png
from segbatch.codecs.decode import decode
from segbatch.codecs.overlay import overlay
from segbatch.config.job import JobSpec
from segbatch.crf.params import default_prune
from segbatch.errors import RecordFailure, SpecError
from segbatch.labels import LabelSet
from segbatch.models.info import DeviceOptions, ModelRequest
from segbatch.protocols import UNTRACKED, Stage
from segbatch.records import Chunk, ChunkId, ClassCount, Record, Scores
from segbatch.refiners.entry import RefinerRequest
from segbatch.stages.config import RefineConfig, SegmentConfig
from segbatch.stages.previews import PreviewSample
from segbatch.storage.files import Files
from segbatch.text import is_blank, redact

ImageLike = str | Path | bytes | Image.Image | np.ndarray

_SETTINGS = (
    *("model", "weights", "classes", "device", "precision", "batch_size", "prune"),
    *("refiner", "refiner_weights", "crf", "max_pixels", "max_record_bytes", "storage_options"),
)
_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
_MAX_SHOWN_CLASSES = 5
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The mask of one image, as a row of an output has it. A notebook shows it over the image.

    Attributes:
        image: The decoded image, uint8 (H, W, 3), upright.
        png: The mask as a palette PNG whose pixel values are class ids.
        classes: Its classes, most pixels first.
        confidence: Mean over the pixels of the network's probability of their class, 0 to 1.
        labels: Names and colors of all classes.
        coarse_scores: The network's log-probabilities at its output stride, before the refiner.
    """

    image: np.ndarray = field(repr=False)
    png: bytes = field(repr=False)
    classes: tuple[ClassCount, ...]
    confidence: float
    labels: LabelSet = field(repr=False)
    coarse_scores: Scores = field(repr=False)

    @cached_property
    def mask(self) -> np.ndarray:
        """Class ids, uint8 (H, W), or uint16 for more than 256 classes."""
        return mask_png.decode(self.png)

    @cached_property
    def scores(self) -> np.ndarray:
        """The network's class probabilities before the refiner, float32 (C, ceil(H / stride), ceil(W / stride)).

        They are at the network's output stride, because at full size those of all classes would be far larger than the
        image. Classes that stay below ``prune`` and are not the most probable anywhere are 0.
        """
        scores = np.zeros((len(self.labels), *self.coarse_scores.values.shape[1:]), np.float32)
        scores[self.coarse_scores.class_ids] = np.exp(self.coarse_scores.values.astype(np.float32))
        return scores

    def overlay(self) -> Image.Image:
        """Return the mask drawn over the image."""
        return overlay(self.image, self.mask, self.labels)

    def save(self, path: str | Path) -> None:
        """Write the mask as a PNG that is byte for byte the one in an output. See ``overlay`` for a picture."""
        Path(path).write_bytes(self.png)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        shares = [f"{self.labels.names[c.class_id]} {c.fraction:.1%}" for c in self.classes[:_MAX_SHOWN_CLASSES]]
        shares += ["…"] * (len(self.classes) > _MAX_SHOWN_CLASSES)
        return f"Segmentation({width} x {height} pixels: {', '.join(shares)}; confidence {self.confidence:.3f})"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.overlay().save(buffer, "PNG")
        return buffer.getvalue()


def segment(image: ImageLike, **settings: Any) -> Segmentation:
    """Segment one image in this process, without Ray: the mask is the one that a job with these settings gives.

    The network of the last call is kept, so that the next image with the same settings takes no time to load it. Calls
    from several threads run one after another.

    Args:
        image: A path or URI, the bytes of an image file, a PIL image, or an array uint8 (H, W, 3) RGB.
        settings: As of ``segbatch.run``: ``model``, ``weights``, ``classes``, ``refiner``, ``refiner_weights``,
            ``crf``, ``prune``, ``device``, ``precision``, ``batch_size``, ``max_pixels``, ``max_record_bytes`` and
            ``storage_options``.

    Raises:
        SpecError: A setting is invalid, or the image is of another type.
        ModelError: The network or its weights are not available.
        RecordFailure: The image cannot be read, decoded or segmented.
    """
    spec = _spec(settings)
    name, data = _encoded(image, spec)
    with _lock:
        stages = _load(_Request.of(spec))
        scored = stages.segment(Chunk(ChunkId("image", 0, True), [Record(name, name, 0, data)]), UNTRACKED)
        (done,) = stages.refine(scored, UNTRACKED).records
    scores = scored.records[0].scores
    if done.error is not None:
        raise RecordFailure(done.error.stage, done.error.type, f"{name}: {done.error.message}")
    assert scores is not None
    assert done.mask is not None
    assert done.confidence is not None
    return Segmentation(decode(data, spec.max_pixels), done.mask, done.classes, done.confidence, stages.labels, scores)


@dataclass(frozen=True)
class _Stages:
    """The stages of a job, loaded in this process."""

    segment: Stage
    refine: Stage
    labels: LabelSet


@dataclass(frozen=True)
class _Request:
    """What stages are loaded from.

    Attributes:
        versions: Modification time and size of the local files in ``spec``: retrained weights are loaded again.
    """

    spec: JobSpec
    versions: tuple[tuple[int, int], ...]

    @staticmethod
    def of(spec: JobSpec) -> _Request:
        paths = [Path(value) for value in (spec.weights, spec.classes, spec.refiner_weights) if value is not None]
        return _Request(spec, tuple((p.stat().st_mtime_ns, p.stat().st_size) for p in paths if p.is_file()))

    def __hash__(self) -> int:
        return hash(self.versions)  # a spec holds mappings


@functools.lru_cache(maxsize=1)
def _load(request: _Request) -> _Stages:
    """Load the network and the refiner; those of the last call are kept."""
    spec = request.spec
    model = models.describe(spec.model, spec.weights, spec.classes, spec.storage_options, check=True)
    chosen = RefinerRequest(spec.refiner, spec.crf, spec.refiner_weights, spec.storage_options)
    refiner = refiners.describe(chosen, model)
    precision = spec.precision
    if precision == "auto":
        precision = "bf16" if models.supports_bf16(spec.device) else "fp32"
    segment_stage = SegmentConfig(
        spec.model,
        ModelRequest(spec.weights, spec.classes, spec.storage_options),
        DeviceOptions(spec.device, precision, spec.batch_size),  # torch keeps the number of threads of this process
        model,
        prune=default_prune(len(model.labels)) if spec.prune is None else spec.prune,
        max_pixels=spec.max_pixels,
        keep_images=refiner.needs_image,
        refuses_emulated_bf16=False,
        sample=PreviewSample(0),
    )
    refine_stage = RefineConfig(
        refiner,
        model.labels,
        model.stride,
        max_pixels=spec.max_pixels,
        temperature=model.temperature,
        has_marginal=False,
        threads=1,
    )
    return _Stages(segment_stage.build(), refine_stage.build(), model.labels)


def _spec(settings: Mapping[str, Any]) -> JobSpec:
    spec = JobSpec.create(inputs=["image"], **{name: value for name, value in settings.items() if name != "inputs"})
    for name in settings:
        if name not in _SETTINGS:
            raise SpecError(f"{name}: has no effect on one image; leave it out, or use segbatch.run")
    return spec


def _encoded(image: ImageLike, spec: JobSpec) -> tuple[str, bytes]:
    """Return a name for messages, and the bytes of an image file: what is not encoded becomes a PNG."""
    if isinstance(image, str | Path):
        if is_blank(str(image)):
            raise SpecError(f"image: got {str(image)!r}; give a path, a URI, bytes, a PIL image or an array")
        return redact(str(image)), Files(spec.storage_options).read(str(image), spec.max_record_bytes)
    if isinstance(image, bytes):
        return "image", image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise SpecError(f"image: got an array {image.dtype} {image.shape}; give uint8 (H, W, 3) RGB")
        return "image", _png(Image.fromarray(np.ascontiguousarray(image)))
    if isinstance(image, Image.Image):
        turned = ImageOps.exif_transpose(image)
        return "image", _png(turned if turned.mode in _PNG_MODES else turned.convert("RGB"))
    raise SpecError(f"image: got {type(image).__name__}; give a path, a URI, bytes, a PIL image or an array")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
