"""Published VGG16 weights under the names of the networks here: the trunk of FCN, DeepLab and others.

Supported are torchvision's ``vgg16`` and ``vgg16_bn`` (``features.N, classifier.N``), timm's (``pre_logits.fc1``), and
the original VGG_ILSVRC_16_layers.caffemodel. PyTorch ports of FCN that keep Caffe's names (``conv1_1.weight``,
``fc6.weight``, ``score_fr.weight``, ``upscore2.weight``) need no conversion.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segbatch.models import state_dict
from segbatch.models.unwrap import StateDict
from segbatch.models.weights import CAFFE_BGR, IMAGENET_RGB
from segbatch.models.zoo.vgg16 import BLOCKS, VGG16

_DENSE = {"classifier.0": "fc6", "classifier.3": "fc7", "pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7"}
_FC_KERNELS = {"fc6": 7, "fc7": 1}


def from_torchvision(state: StateDict) -> StateDict:
    """Rename a state dict of torchvision's or timm's VGG16; return any other unchanged.

    torchvision's network takes RGB of mean 0 and deviation 1; the first convolution is changed to give the same output
    for BGR of 0 to 255 minus Caffe's mean (approximately at the border, where zeros are padded). Dense layers become
    convolutions; the classifier of ImageNet's classes keeps its name.
    """
    if "features.0.weight" not in state:
        return state
    norms = "features.1.running_mean" in state
    names = _features(norms)
    converted: StateDict = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if layer in _DENSE:
            converted[f"{_DENSE[layer]}.{part}"] = _as_kernel(_DENSE[layer], part, value)
        else:
            converted[f"{names[layer]}.{part}" if layer in names else key] = value
    first = "conv1_1.conv" if norms else "conv1_1"
    weight, bias = converted.get(f"{first}.weight"), converted.get(f"{first}.bias")
    if weight is not None and bias is not None and weight.ndim == 4 and weight.shape[1] == 3:
        converted[f"{first}.weight"], converted[f"{first}.bias"] = _for_bgr(weight, bias)
    return converted


def load_trunk(network: VGG16, state: StateDict, source: str) -> list[str]:
    """Copy the convolutions of a VGG16 that was trained on ImageNet into ``network``, as initial weights.

    fc6 and fc7 are copied too where the network has them in that size; the other layers keep their weights.

    Args:
        state: The state dict, by torchvision, timm or Caffe.
        source: Where it was read, for messages.

    Returns:
        The keys of the tensors that were copied.

    Raises:
        ModelError: A tensor is missing or of another shape. The network is unchanged then.
    """
    if all("/" in key for key in state):
        state = {_blob(key): _unpacked(_blob(key), value) for key, value in state.items()}
    state = from_torchvision(state)
    own = network.state_dict()
    trunk = tuple(f"{name}." for block in range(1, len(BLOCKS) + 1) for name in VGG16.names(block))
    wanted = {key: value for key, value in own.items() if key.startswith(trunk)}
    taken = {key: state[key] for key in wanted if key in state}
    state_dict.check_keys(taken, wanted, source, "the VGG16 trunk")
    for key in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"):
        if key in own and key in state and own[key].shape == state[key].shape:
            taken[key] = state[key]
    network.load_state_dict(taken, strict=False)
    return list(taken)


def _features(norms: bool) -> dict[str, str]:
    """``features.N`` -> module. Each convolution is followed by its ReLU, each block by its pooling."""
    names, at = {}, 0
    for block in range(1, len(BLOCKS) + 1):
        for name in VGG16.names(block):
            names[f"features.{at}"] = f"{name}.conv" if norms else name
            if norms:
                names[f"features.{at + 1}"] = f"{name}.bn"
            at += 3 if norms else 2
        at += 1
    return names


def _for_bgr(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The first convolution, trained on ``IMAGENET_RGB`` = ``(x / 255 - mean) / std``, for ``CAFFE_BGR``."""
    if min(weight.numel(), bias.numel()) == 0 or weight.shape[0] != bias.shape[0]:
        return weight, bias
    scale, shift = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in IMAGENET_RGB.affine())
    mean = torch.tensor(CAFFE_BGR.mean[::-1], dtype=torch.float64)[:, None, None]
    constant = (weight.double() * (mean * scale + shift)).sum((1, 2, 3))
    return (weight.double() * scale).flip(1).to(weight.dtype), (bias.double() + constant).to(bias.dtype)


def _as_kernel(layer: str, part: str, value: Tensor) -> Tensor:
    side = _FC_KERNELS[layer]
    if part != "weight" or value.ndim != 2 or value.shape[1] % side**2:
        return value
    return value.reshape(value.shape[0], -1, side, side)


def _blob(key: str) -> str:
    layer, _, index = key.rpartition("/")
    return f"{layer}.{'bias' if index == '1' else 'weight'}" if index in ("0", "1") else key


def _unpacked(key: str, value: Tensor) -> Tensor:
    """A blob of Caffe without the leading 1s of its old shapes."""
    if key.endswith(".bias"):
        return value.reshape(-1)
    layer = key.removesuffix(".weight")
    if layer not in _FC_KERNELS:
        return value
    return _as_kernel(layer, "weight", value.reshape(value.shape[-2:]) if value.shape[:-2] == (1, 1) else value)
