"""Build networks with their weights, and compare the weights in files with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from segbatch.errors import ModelError, SpecError
from segbatch.models import state_dict, unwrap
from segbatch.models.architecture import Architecture
from segbatch.models.info import DeviceOptions
from segbatch.models.runner import TorchModel
from segbatch.models.unwrap import StateDict, Taken
from segbatch.models.weights import Weights


def build(
    architecture: Architecture, weights: Weights, state: StateDict | None, execution: DeviceOptions
) -> TorchModel:
    """Return a network on its device, with the tensors of ``state``; without any they are random."""
    # ``random`` weights are the initialization. The caller's random numbers must not advance.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(weights.source) if weights.origin == "seed" else 0)
        network = architecture.network(len(weights.labels))
    if state is not None:
        network.load_state_dict(state, strict=False)
    geometry = architecture.geometry
    if execution.tile_pixels is not None:
        try:
            geometry = replace(geometry, tile_pixels=execution.tile_pixels)
        except ValueError as e:
            raise SpecError(f"{architecture.name}: {e}") from e
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
    return TorchModel(
        architecture.name,
        network,
        weights.labels,
        geometry,
        weights.preprocess,
        digest=weights.digest,
        device=execution.device,
        precision=execution.precision,
        batch_size=execution.batch_size,
    )


def take(architecture: Architecture, data: bytes, source: str) -> Taken:
    """Return the tensors of a file that fit a network best, complete or not. Raises ``ModelError``."""
    return take_loaded(architecture, state_dict.load(data, source), source)


def take_loaded(architecture: Architecture, loaded: Mapping[Any, Any], source: str) -> Taken:
    """Return the tensors of a loaded checkpoint that fit a network best, complete or not."""
    tensors = functools.cache(lambda count: on_meta(architecture, count).state_dict())
    return unwrap.take(loaded, source, lambda state: tensors(class_count(architecture, state)), architecture.convert)


def class_count(architecture: Architecture, state: StateDict) -> int:
    """Return the number of classes of the head in ``state``; that of the network's labels if there is no such head."""
    head = state.get(architecture.head)
    fits = head is not None and head.ndim > 0 and 0 < head.shape[0] < 2**15  # class ids are int16
    return head.shape[0] if head is not None and fits else len(architecture.labels)


def state_of_file(architecture: Architecture, data: bytes, source: str) -> tuple[StateDict, str]:
    """Return the finite tensors of a file that fit a network completely, and a note on which they are.

    Raises:
        ModelError: There are none. The message names a network of the registry that they fit.
    """
    taken = take(architecture, data, source)
    try:
        state_dict.check(
            taken.state, on_meta(architecture, class_count(architecture, taken.state)), source, architecture.name
        )
    except ModelError as e:
        raise ModelError(f"{e}{nearest(state_dict.load(data, source), architecture.name)}") from None
    state_dict.check_finite(taken.state, source)
    return taken.state, taken.note


def checked_state(architecture: Architecture, data: bytes, source: str, count: int) -> StateDict:
    """Return the tensors of named weights for ``count`` classes. Raises ``ModelError`` if they do not fit."""
    state = take(architecture, data, source).state
    state_dict.check(state, on_meta(architecture, count), source, architecture.name)
    return state


def on_meta(architecture: Architecture, count: int) -> nn.Module:
    """Return the network for ``count`` classes without memory or values."""
    with torch.device("meta"), _Uninitialized():
        return architecture.network(count)


def upsampled_scores(network: nn.Module, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores at every pixel of ``truth``, after bilinear upsampling, and ``truth``."""
    scores = network(x)
    if scores.shape[2:] != truth.shape[1:]:
        scores = F.interpolate(scores, truth.shape[1:], mode="bilinear", align_corners=False)
    return scores, truth


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
            fits = take_loaded(other, loaded, model).share
        except ModelError:  # several networks in one file fit it
            fits = 1.0
        if fits > share:
            best, share = name, fits
    if share == 1:
        return f"; they fit {best}"
    return f"; the nearest is {best}, of which {share:.0%} of the tensors fit" if share > 0.5 else ""
