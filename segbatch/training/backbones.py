"""Backbones that learnt on ImageNet, from timm or a file, put into the networks here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from segbatch.errors import ModelError, SpecError
from segbatch.models import checkpoint
from segbatch.models.unwrap import StateDict
from segbatch.models.weights import read_uri
from segbatch.models.zoo import ports
from segbatch.models.zoo.vgg16 import VGG16

# What timm calls the networks that ours are built on.
_TIMM = {
    "deeplabv3plus_mobilenet_v2": "mobilenetv2_100",
    "deeplabv3_mobilenet_v3_large": "mobilenetv3_large_100",
    "lraspp_mobilenet_v3_large": "mobilenetv3_large_100",
    "deeplabv3_resnet50": "resnet50",
    "fcn_resnet50": "resnet50",
    "deeplabv3_resnet101": "resnet101",
    "fcn_resnet101": "resnet101",
}


def load(network: nn.Module, model: str, uri: str, storage_options: Mapping[str, Any]) -> str:
    """Put the backbone in the file ``uri``, or timm's if that is empty, into ``network``; a sentence on what was taken.

    The file is a classifier's state dict by torchvision or timm (for VGG16 also Caffe's). Raises ``ModelError`` for
    what cannot be read, downloaded or does not fit; ``SpecError`` if the network has no such backbone.
    """
    name = timm_name(network, model)
    source = uri or f"timm's {name}"
    if isinstance(network, VGG16):
        if uri:
            taken = ports.load_trunk(network, read_uri(uri, "init", storage_options), uri)
        else:
            taken = ports.load_trunk_state(network, _timm(name, pretrained=True), source)
    elif uri:
        taken = _load(network, checkpoint.parse(read_uri(uri, "init", storage_options), uri), name, source)
    else:
        taken = _load(network, _timm(name, pretrained=True), name, source)
    return f"{len(taken)} tensors of {source}"


def timm_name(network: nn.Module, model: str) -> str:
    """What timm calls the backbone of a network. Raises ``SpecError`` where there is none."""
    if isinstance(network, VGG16):
        return "vgg16_bn" if any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) else "vgg16"
    if model not in _TIMM:
        raise SpecError(f"init: {model} has no backbone that was trained on ImageNet; give scratch, or weights of it")
    return _TIMM[model]


def _timm(name: str, pretrained: bool) -> StateDict:
    """The state dict of one of timm's networks. Raises ``ModelError`` if its weights cannot be had."""
    try:
        import timm
    except ImportError as e:
        raise SpecError("init: backbone needs timm, which is not installed; pip install timm") from e
    if not pretrained:
        return timm.create_model(name).state_dict()
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as e:  # whatever the hub's client, the network and the file may raise
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ModelError(
            f"init: timm's weights of {name} cannot be had: {reason}. Download them where there is a network, then "
            "give --init backbone:URI of that file"
        ) from e


def _load(network: nn.Module, state: StateDict, timm_name: str, source: str) -> list[str]:
    """The tensors of ``network.backbone`` from a classifier of torchvision's or timm's; their keys.

    Names are torchvision's, or timm's, which for MobileNet are others for the same layers in the same order: so timm's
    own network tells which is which. A file has its tensors in no order.
    """
    wanted = {k: v for k, v in network.state_dict().items() if k.startswith("backbone.") and not _is_counter(k)}
    given = {key.removeprefix("backbone.").removeprefix("features."): value for key, value in state.items()}
    names = {key: key.removeprefix("backbone.") for key in wanted}
    if not all(name in given for name in names.values()):
        order = [key for key in _timm(timm_name, pretrained=False) if not _is_counter(key)]
        names = dict(zip(wanted, order, strict=False))
    taken = {key: given[name] for key, name in names.items() if name in given}
    checkpoint.check_keys(taken, wanted, source, "the backbone")
    network.load_state_dict(taken, strict=False)
    return list(taken)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
