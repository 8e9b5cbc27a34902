"""Caffe's blobs by layer and number, as ``caffe.read`` gives them, to the parameters of a network here."""

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
    """conv1_1 to conv5_3."""
    return [name for block in range(1, len(BLOCKS) + 1) for name in VGG16.names(block)]


def from_caffe(layers: Mapping[str, str]) -> Callable[[StateDict], StateDict]:
    """A converter of state dicts: the blobs of ``layers`` (Caffe's name -> module here) get this network's keys.

    Blob 0 is the ``weight``, blob 1 the ``bias``. Modules whose name ends in ``.bn`` take Caffe's BN blobs
    [scale, shift], in which the statistics are folded in already (``bn_mode: INFERENCE``). A name that ends in
    ``*`` stands for the first layer that begins so: names of score layers carry the data set. Blobs of other
    layers keep their names, for ``state_dict.check`` to list; state dicts that hold no blobs are returned as
    ``ports.from_torchvision`` returns them.
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
                # With eps the divisor is 1: nothing is left to normalize.
                converted[f"{module}.running_var"] = torch.full_like(value, 1 - _EPS)
        return converted

    return convert


def _find(name: str, present: list[str]) -> str:
    if not name.endswith("*"):
        return name
    return next((layer for layer in present if layer.startswith(name[:-1])), name)


def _flat(value: Tensor) -> Tensor:
    """A vector that old Caffe files hold as (1, 1, 1, n) or (1, n, 1, 1); other shapes unchanged."""
    return value.reshape(-1) if sum(side != 1 for side in value.shape) <= 1 else value
