"""A network for any number of classes, with its known weights and its training recipe. Does not import torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from segbatch.config.training import TrainingRecipe
from segbatch.errors import SpecError
from segbatch.labels import VOC_LABELS, LabelSet
from segbatch.models.backbones import Backbone
from segbatch.models.deferred import Deferred
from segbatch.models.info import DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.tiles import Geometry
from segbatch.models.weights import (
    IMAGENET_RGB,
    SUFFIXES,
    Preprocess,
    Weights,
    choose,
    content_digest,
    read_labels,
)
from segbatch.packages import packages_of_model
from segbatch.text import escape_control_characters, redact

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segbatch.models.runner import TorchModel
    from segbatch.models.unwrap import StateDict

logger = logging.getLogger(__name__)

_UPSAMPLED = Deferred("segbatch.models.loading:upsampled_scores")


@dataclass(frozen=True)
class Architecture:
    """An entry of the registry that builds a ``TorchModel``; a new network is one of these.

    Named and random weights are described without importing torch; a file of weights is read and compared with the
    network.

    Attributes:
        network: Builds the module for a number of classes: normalized (N, 3, H, W) -> logits (N, C, H / stride, W /
            stride).
        head: Key in the state dict whose first dimension is the number of classes.
        parameters: Number of trained parameters as a polynomial in the number of classes: its coefficients, the
            constant first. Empty if it is not stated.
        preprocess: Of the weights in a file.
        weights: The named sets, the default first.
        labels: Classes of the weights in a file without ``--classes``, unless a named set has as many.
        convert: Renames the keys of a file's state dict to those of the network.
        refines: Names the layers that refine scores as a refiner does, if there are any.
        recipe: Settings that the authors trained with.
        train_network: Builds the module that is trained, if it differs from ``network``; its state dict must be the
            same.
        training_scores: Called with the network, images (N, 3, H, W) and class ids (N, H, W); returns scores (N, C, h,
            w) and class ids (N, h, w) on the grid of the loss.
        backbone: The part that takes ImageNet weights, if there is one.
        is_light: Whether it takes clearly less CPU time per image than the dense CRF.
    """

    name: str
    summary: str
    network: Callable[[int], nn.Module]
    head: str
    geometry: Geometry
    parameters: tuple[int, ...] = ()
    preprocess: Preprocess = IMAGENET_RGB
    weights: Mapping[str, Weights] = field(default_factory=dict)
    labels: LabelSet = VOC_LABELS
    convert: Callable[[StateDict], StateDict] = dict
    refines: str = ""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    train_network: Callable[[int], nn.Module] | None = None
    training_scores: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]] = _UPSAMPLED
    backbone: Backbone | None = None
    is_light: bool = False

    def describe(self, choice: ModelRequest) -> ModelInfo:
        """Return the model that ``build`` would return. Published weights are downloaded only if ``choice.check``."""
        weights = self._requested(choice)
        if weights is None:
            with packages_of_model(self.name):
                weights, _ = self._of_file(choice)
        if choice.check and weights.origin == "url":
            weights = replace(weights, digest=content_digest(weights.read()))
        if weights.note:
            logger.info("weights %s: %s", redact(weights.source), escape_control_characters(weights.note))
        return self._info(weights)

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> TorchModel:
        """Return the model with its weights, on its device."""
        with packages_of_model(self.name):
            from segbatch.models import loading  # imports torch

            weights = self._requested(choice)
            if weights is None:
                weights, state = self._of_file(choice)
                return loading.build(self, weights, state, execution)
            if weights.origin == "seed":
                return loading.build(self, weights, None, execution)
            data = weights.read()
            state = loading.checked_state(self, data, weights.source, len(weights.labels))
            return loading.build(self, replace(weights, digest=content_digest(data)), state, execution)

    def infos(self) -> list[ModelInfo]:
        named = [w.identified() for w in self.weights.values()]
        return [self._info(w) for w in named or [Weights("", "uri", f"a file ({' '.join(SUFFIXES)})", self.labels)]]

    def architecture(self) -> Architecture:
        """Return this object."""
        return self

    def _info(self, weights: Weights) -> ModelInfo:
        count = len(weights.labels)
        return ModelInfo(
            name=self.name,
            summary=self.summary,
            weights=weights.name,
            source=weights.source,
            labels=weights.labels,
            stride=self.geometry.stride,
            digest=weights.digest,
            parameters=sum(factor * count**power for power, factor in enumerate(self.parameters)),
            accuracy=weights.accuracy,
            terms=weights.terms,
            temperature=weights.temperature,
            refines=self.refines,
            crf=weights.crf,
            note=weights.note,
            is_light=self.is_light,
        )

    def _requested(self, choice: ModelRequest) -> Weights | None:
        """Return named or random weights with their final labels; None if ``choice`` names a file."""
        if choice.weights == "random" or choice.weights.startswith("random:"):
            return self._random(choice)
        chosen = choose(self.name, self.weights, choice.weights)
        if isinstance(chosen, str):
            return None
        weights = chosen.identified()
        if choice.classes is None:
            return weights
        labels = read_labels(choice.classes, len(weights.labels), self.name, choice.storage_options)
        return replace(weights, labels=labels)

    def _of_file(self, choice: ModelRequest) -> tuple[Weights, StateDict]:
        """Return the weights in a file with their labels and digest, and their tensors, which fit the network."""
        from segbatch.models import loading  # imports torch

        weights = Weights(choice.weights, "uri", choice.weights, self.labels, self.preprocess)
        data = weights.read(choice.storage_options)
        digest, (state, note) = content_digest(data), loading.state_of_file(self, data, choice.weights)
        labels = self._labels(choice, loading.class_count(self, state))
        tuned = self._named(digest) or weights
        return (
            replace(weights, labels=labels, digest=digest, note=note, temperature=tuned.temperature, crf=tuned.crf),
            state,
        )

    def _named(self, digest: str) -> Weights | None:
        """The named weights whose file has this digest."""
        named = (w for w in map(Weights.identified, self.weights.values()) if w.digest)
        return next((w for w in named if digest.startswith(w.digest)), None)

    def _labels(self, choice: ModelRequest, count: int) -> LabelSet:
        if choice.classes is not None:
            return read_labels(choice.classes, count, self.name, choice.storage_options)
        known = [w.labels for w in self.weights.values()] or [self.labels]
        for labels in known:
            if len(labels) == count:
                return labels
        raise SpecError(
            f"weights {choice.weights!r} have {count} classes, and {self.name} knows names for "
            f"{' or '.join(str(len(k)) for k in known)}; give the names with --classes FILE"
        )

    def _random(self, choice: ModelRequest) -> Weights:
        seed = choice.weights.removeprefix("random").removeprefix(":") or "0"
        if not seed.isdecimal():
            raise SpecError(f"weights {choice.weights!r}: the seed must be a whole number, as in random:1")
        labels = next(iter(self.weights.values())).labels if self.weights else self.labels
        if choice.classes is not None:
            labels = read_labels(choice.classes, None, self.name, choice.storage_options)
        return Weights(
            choice.weights,
            "seed",
            seed,
            labels,
            self.preprocess,
            "untrained",
            digest=f"random:{seed}:{len(labels)}",
        )
