"""Caffe's blobs, as ``caffe.read`` returns them, to the keys of the networks here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from segbatch.models.unwrap import StateDict
from segbatch.models.zoo.ports import from_torchvision
from segbatch.models.zoo.vgg16 import BLOCKS, VGG16

_BLOB = re.compile(r"(?P<layer>.+)/(?P<index>\d+)", re.DOTALL)
_EPS = 1e-5  # of nn.BatchNorm2d


def conv_layers() -> list[str]:
    """Return the names conv1_1 to conv5_3."""
    return [name for block in range(1, len(BLOCKS) + 1) for name in VGG16.names(block)]


def from_caffe(layers: Mapping[str, str]) -> Callable[[StateDict], StateDict]:
    """Return a converter of state dicts that gives Caffe's blobs the keys of a network.

    Blob 0 is the ``weight``, blob 1 the ``bias``. Modules whose name ends in ``.bn`` take the blobs [scale, shift] of a
    Caffe BN layer, in which the statistics are folded (``bn_mode: INFERENCE``). Blobs of other layers keep their names,
    for ``state_dict.check`` to list; state dicts without blobs are converted by ``ports.from_torchvision``.

    Args:
        layers: Caffe's name -> module. A name that ends in ``*`` stands for the first layer with that prefix: names of
            score layers end in that of the data set.
    """

    def convert(state: StateDict) -> StateDict:
        parsed = {key: _BLOB.fullmatch(key) for key in state}
        if not all(parsed.values()):
            return from_torchvision(state)
        present = list(dict.fromkeys(match["layer"] for match in parsed.values() if match))
        modules = {_find(name, present): module for name, module in layers.items()}
        converted: StateDict = {}
        for key, match in parsed.items():
            assert match is not None
            module, index = modules.get(match["layer"]), int(match["index"])
            if module is None or index > 1:
                converted[key] = state[key]
                continue
            normalizes = module.endswith(".bn")
            value = _flat(state[key]) if index == 1 or normalizes else state[key]
            converted[f"{module}.{'bias' if index else 'weight'}"] = value
            if normalizes and index == 0:
                converted[f"{module}.running_mean"] = torch.zeros_like(value)
                # With eps the divisor is 1: the statistics are folded into scale and shift.
                converted[f"{module}.running_var"] = torch.full_like(value, 1 - _EPS)
        return converted

    return convert


def _find(name: str, present: list[str]) -> str:
    if not name.endswith("*"):
        return name
    return next((layer for layer in present if layer.startswith(name[:-1])), name)


def _flat(value: Tensor) -> Tensor:
    """A vector that old Caffe files store as (1, 1, 1, n) or (1, n, 1, 1); other shapes unchanged."""
    return value.reshape(-1) if sum(side != 1 for side in value.shape) <= 1 else value
