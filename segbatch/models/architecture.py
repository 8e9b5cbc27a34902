"""A network for any number of classes, with its known weights and its training recipe."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

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
    """An entry of the registry that builds a ``TorchModel``; a new network is one of these.

    Attributes:
        network: Builds the module for a number of classes: normalized (N, 3, H, W) -> logits (N, C, H / stride, W /
            stride).
        head: Key in the state dict whose first dimension is the number of classes.
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
        """Return the model that ``build`` would return; named weights are read only if ``choice.check``."""
        weights, _ = self._resolve(choice, read_named=choice.check)
        if weights.note:
            logger.info("weights %s: %s", redact(weights.source), escape_control_characters(weights.note))
        return self._info(weights)

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> TorchModel:
        """Return the model with its weights, on its device."""
        weights, state = self._resolve(choice, read_named=True)
        # ``random`` weights are the initialization. The caller's random numbers must not advance.
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
        """The weights with final labels and digest, and their content if it was read."""
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
        """Return the tensors of a file that fit this network best, complete or not. Raises ``ModelError``."""
        return self.take_loaded(state_dict.load(data, source), source)

    def take_loaded(self, loaded: Mapping[Any, Any], source: str) -> Taken:
        tensors = functools.cache(lambda count: self._on_meta(count).state_dict())
        return take(loaded, source, lambda state: tensors(self._count(state)), self.convert)

    def _count(self, state: StateDict) -> int:
        """The number of classes of the head in ``state``, or of ``labels`` if there is no such head."""
        head = state.get(self.head)
        fits = head is not None and head.ndim > 0 and 0 < head.shape[0] < 2**15  # class ids are int16
        return head.shape[0] if head is not None and fits else len(self.labels)

    def _check(self, data: bytes, state: StateDict, source: str) -> None:
        try:
            state_dict.check(state, self._on_meta(self._count(state)), source, self.name)
        except ModelError as e:
            raise ModelError(f"{e}{nearest(state_dict.load(data, source), self.name)}") from None

    def _named(self, digest: str) -> Weights | None:
        """The named weights whose file has this digest."""
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
        """The network without memory or values."""
        with torch.device("meta"), _Uninitialized():
            return self.network(count)


class _Uninitialized(TorchFunctionMode):
    """Draw no random numbers: on the meta device ``normal_`` imports ``torch._dynamo`` (2 s, torch 2.14)."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        if func in (nn.init.normal_, nn.init.uniform_):
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def nearest(loaded: Mapping[Any, Any], model: str) -> str:
    """Return a hint for messages: the network of the registry that a file fits, or mostly fits."""
    from segbatch.models import MODELS, entry  # circular: the registry names this module

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
