"""Picklable descriptions of the stages, from which workers build them."""

from __future__ import annotations

from dataclasses import dataclass

from segbatch import models, refiners
from segbatch.errors import NetworkError
from segbatch.labels import LabelSet
from segbatch.models.bf16 import refuse_emulated_bf16
from segbatch.models.info import DeviceOptions, ModelInfo, ModelRequest
from segbatch.protocols import Model, Stage
from segbatch.refiners import RefinerInfo
from segbatch.stages.canary import SelfChecking, sample_chunk
from segbatch.stages.previews import Previewer, PreviewSample
from segbatch.stages.refine import Refine
from segbatch.stages.segment import Segment
from segbatch.text import redact

_CHANGED = "changed since the job was planned"
_REMEDY = "every machine must have the same files, unchanged until the job is done; run the same command again"


@dataclass(frozen=True)
class SegmentConfig:
    """Everything that a worker needs to build the stage that decodes and scores.

    Args:
        model: A name of the registry, or ``package.module:factory``.
        planned: The network as it was planned. The one that the worker loads is compared with it.
        keep_images: Whether the refiner needs the images.
        refuses_emulated_bf16: Whether a GPU without native bf16 is refused.
        sample: The records that get a preview.
    """

    model: str
    request: ModelRequest
    device: DeviceOptions
    planned: ModelInfo
    prune: float
    max_pixels: int
    keep_images: bool
    refuses_emulated_bf16: bool
    sample: PreviewSample

    def build(self) -> Stage:
        """Load the network in this process.

        Raises:
            NetworkError: The network that was loaded is not the one that was planned.
            ModelError: The GPU only emulates bf16.
        """
        if self.refuses_emulated_bf16:
            refuse_emulated_bf16(self.device.device)
        model = models.entry(self.model).build(self.request, self.device)
        self._refuse_changed(model)
        segment = Segment(
            model,
            max_pixels=self.max_pixels,
            prune=self.prune,
            keep_images=self.keep_images,
            threads=self.device.threads or 1,
            previewer=Previewer(self.sample, model.labels) if self.sample.count else None,
        )
        # A network that looks something up by id may not know the ids of the sample images.
        is_trusted = not (self.planned.wrong_size or self.planned.untried or self.planned.needs_ids)
        return SelfChecking("segment", f"network {self.model}", segment, sample_chunk(), is_trusted=is_trusted)

    def _refuse_changed(self, model: Model) -> None:
        planned, classes = self.planned, redact(self.request.classes or "")
        pairs = {
            f"weights {redact(self.request.weights)!r} and their network": (planned.digest, model.digest),
            f"classes {classes!r}": (planned.labels.names, model.labels.names),
            f"colors of classes {classes!r}": (planned.labels.colors, model.labels.colors),
            "stride": (planned.stride, model.stride),
        }
        differ = [f"{what}: planned {before}, loaded {now}" for what, (before, now) in pairs.items() if before != now]
        if differ:
            raise NetworkError(f"{_CHANGED}: model {self.model}, {'; '.join(differ)}; {_REMEDY}")


@dataclass(frozen=True)
class RefineConfig:
    """Everything that a worker needs to build the stage that refines, encodes and counts.

    Args:
        planned: The refiner as it was planned. The one that the worker loads is compared with it.
        labels: The network's classes.
        stride: Of the network's scores, in pixels.
    """

    planned: RefinerInfo
    labels: LabelSet
    stride: int
    max_pixels: int
    temperature: float
    has_marginal: bool
    threads: int

    def build(self) -> Stage:
        """Load the refiner in this process.

        Raises:
            NetworkError: The refiner that was loaded is not the one that was planned.
        """
        request = self.planned.request
        refiner = refiners.build(request)
        if refiner.parameters != self.planned.parameters:
            raise NetworkError(
                f"{_CHANGED}: refiner {request.name}, refiner_weights {redact(request.weights or '')!r}: planned "
                f"{self.planned.parameters}, loaded {refiner.parameters}; {_REMEDY}"
            )
        refine = Refine(
            refiner,
            self.labels,
            max_pixels=self.max_pixels,
            temperature=self.temperature,
            has_marginal=self.has_marginal,
            threads=self.threads,
        )
        samples = sample_chunk((len(self.labels), self.stride))
        return SelfChecking("refine", f"refiner {request.name}", refine, samples, is_trusted=True)
