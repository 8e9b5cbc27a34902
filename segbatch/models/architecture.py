"""A network that can be built for any number of classes, with the weights that are known for it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.config.training import TrainingRecipe
from segbatch.errors import ModelError, SpecError
from segbatch.labels import VOC_LABELS, LabelSet
from segbatch.models import state_dict
from segbatch.models.backbones import Backbone
from segbatch.models.info import DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.runner import TorchModel
from segbatch.models.tiles import Geometry
from segbatch.models.unwrap import StateDict, Taken, take
from segbatch.models.weights import (
    IMAGENET_RGB,
    SUFFIXES,
    Preprocess,
    Weights,
    choose,
    content_digest,
    read_labels,
)
from segbatch.text import escape_control_characters, redact

logger = logging.getLogger(__name__)


def upsampled_scores(network: nn.Module, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores at every pixel of ``truth``, after bilinear upsampling, and ``truth``."""
    scores = network(x)
    if scores.shape[2:] != truth.shape[1:]:
        scores = F.interpolate(scores, truth.shape[1:], mode="bilinear", align_corners=False)
    return scores, truth


@dataclass(frozen=True)
class Architecture:
    """An entry of the registry that builds a ``TorchModel``. Adding a network is one of these.

    ``network`` makes the module for a number of classes: normalized (N, 3, H, W) to logits
    (N, C, H / stride, W / stride). ``head`` is the state-dict key whose first dimension is that number.
    ``weights`` are the named sets, the default first; a file of weights is taken to be preprocessed as
    ``preprocess`` says and, without ``--classes``, to have the classes of the first named set, or else of
    ``labels``, that are as many. ``convert`` turns the state dict of a file into this network's keys. ``refines`` names
    layers that do what a refiner would, if there are any.

    Four attributes are for training alone. ``recipe`` holds what the authors trained with. ``train_network`` makes the
    module that is trained, where it differs from ``network`` without differing in its state dict.
    ``training_scores(network, x, truth)`` gives the scores (N, C, h, w) of a batch and its class ids (N, h, w) on the
    grid on which the loss is taken. ``backbone`` is the part that takes ImageNet weights.
    """

    name: str
    summary: str
    network: Callable[[int], nn.Module]
    head: str
    geometry: Geometry
    preprocess: Preprocess = IMAGENET_RGB
    weights: Mapping[str, Weights] = field(default_factory=dict)
    labels: LabelSet = VOC_LABELS
    convert: Callable[[StateDict], StateDict] = dict
    refines: str = ""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    train_network: Callable[[int], nn.Module] | None = None
    training_scores: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]] = upsampled_scores
    backbone: Backbone | None = None

    def describe(self, choice: ModelRequest) -> ModelInfo:
        """The model that ``choice`` would build; named weights are read for it only if ``choice.check``."""
        weights, _ = self._resolve(choice, read_named=choice.check)
        if weights.note:
            logger.info("weights %s: %s", redact(weights.source), escape_control_characters(weights.note))
        return self._info(weights)

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> TorchModel:
        """The model with its weights, on its device."""
        weights, state = self._resolve(choice, read_named=True)
        # Initialization must not advance the caller's random numbers, and is what ``random`` weights are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(weights.source) if weights.origin == "seed" else 0)
            network = self.network(len(weights.labels))
        if state is not None:
            network.load_state_dict(state, strict=False)
        geometry = self.geometry
        if execution.tile_pixels is not None:
            try:
                geometry = replace(geometry, tile_pixels=execution.tile_pixels)
            except ValueError as e:
                raise SpecError(f"{self.name}: {e}") from e
        if execution.threads is not None:
            torch.set_num_threads(execution.threads)
        return TorchModel(
            self.name,
            network,
            weights.labels,
            geometry,
            weights.preprocess,
            digest=weights.digest,
            device=execution.device,
            precision=execution.precision,
            batch_size=execution.batch_size,
        )

    def infos(self) -> list[ModelInfo]:
        named = [w.identified() for w in self.weights.values()]
        return [self._info(w) for w in named or [Weights("", "uri", f"a file ({' '.join(SUFFIXES)})", self.labels)]]

    def architecture(self) -> Architecture:
        """Return this object."""
        return self

    def _info(self, weights: Weights) -> ModelInfo:
        network = self._on_meta(len(weights.labels))
        return ModelInfo(
            name=self.name,
            summary=self.summary,
            weights=weights.name,
            source=weights.source,
            labels=weights.labels,
            stride=self.geometry.stride,
            digest=weights.digest,
            parameters=sum(p.numel() for p in network.parameters()),
            accuracy=weights.accuracy,
            terms=weights.terms,
            temperature=weights.temperature,
            refines=self.refines,
            crf=weights.crf,
            note=weights.note,
        )

    def _resolve(self, choice: ModelRequest, *, read_named: bool) -> tuple[Weights, StateDict | None]:
        """The weights that are meant, their labels and digest final, and their content if it was read."""
        if choice.weights == "random" or choice.weights.startswith("random:"):
            return self._random(choice), None
        chosen = choose(self.name, self.weights, choice.weights)
        if isinstance(chosen, Weights):
            weights = chosen.identified()
            if choice.classes is not None:
                labels = read_labels(choice.classes, len(weights.labels), self.name, choice.storage_options)
                weights = replace(weights, labels=labels)
            if not read_named:
                return weights, None
            data = weights.read()
            return replace(weights, digest=content_digest(data)), self._state(data, weights.source, len(weights.labels))
        weights = Weights(chosen, "uri", chosen, self.labels, self.preprocess)
        data = weights.read(choice.storage_options)
        digest = content_digest(data)
        taken = self.take(data, chosen)
        self._check(data, taken.state, chosen)
        state_dict.check_finite(taken.state, chosen)
        labels = self._labels(choice, self._count(taken.state))
        tuned = self._named(digest) or weights
        weights = replace(weights, labels=labels, digest=digest, note=taken.note)
        return replace(weights, temperature=tuned.temperature, crf=tuned.crf), taken.state

    def take(self, data: bytes, source: str) -> Taken:
        """What fits this network best of a file of weights, whole or not. Raises ``ModelError`` as ``load`` does."""
        return self.take_loaded(state_dict.load(data, source), source)

    def take_loaded(self, loaded: Mapping[Any, Any], source: str) -> Taken:
        tensors = functools.cache(lambda count: self._on_meta(count).state_dict())
        return take(loaded, source, lambda state: tensors(self._count(state)), self.convert)

    def _count(self, state: StateDict) -> int:
        """The number of classes that the head in ``state`` has. One that cannot be a head is of another shape."""
        head = state.get(self.head)
        fits = head is not None and head.ndim > 0 and 0 < head.shape[0] < 2**15  # class ids are int16
        return head.shape[0] if head is not None and fits else len(self.labels)

    def _check(self, data: bytes, state: StateDict, source: str) -> None:
        try:
            state_dict.check(state, self._on_meta(self._count(state)), source, self.name)
        except ModelError as e:
            raise ModelError(f"{e}{nearest(state_dict.load(data, source), self.name)}") from None

    def _named(self, digest: str) -> Weights | None:
        """The named weights that a file is a copy of."""
        named = (w for w in map(Weights.identified, self.weights.values()) if w.digest)
        return next((w for w in named if digest.startswith(w.digest)), None)

    def _state(self, data: bytes, source: str, count: int) -> StateDict:
        state = self.take(data, source).state
        state_dict.check(state, self._on_meta(count), source, self.name)
        return state

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

    def _on_meta(self, count: int) -> nn.Module:
        """The network without memory or values, to count and compare with."""
        with torch.device("meta"):
            return self.network(count)


def nearest(loaded: Mapping[Any, Any], model: str) -> str:
    """``; they fit MODEL`` of the other networks of the registry that a file fits as a whole, or else mostly."""
    from segbatch.models import MODELS, entry  # which names this module

    best, share = "", 0.0
    for name in MODELS:
        other = entry(name).architecture()
        if name == model or other is None:
            continue
        try:
            fits = other.take_loaded(loaded, model).share
        except ModelError:  # several networks in one file fit it
            fits = 1.0
        if fits > share:
            best, share = name, fits
    if share == 1:
        return f"; they fit {best}"
    return f"; the nearest is {best}, of which {share:.0%} of the tensors fit" if share > 0.5 else ""
