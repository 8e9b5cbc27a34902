"""ImageNet weights for the backbones of networks that are to be trained: of timm, or of a file.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from segbatch.errors import ModelError, SpecError
from segbatch.models.weights import read_uri

if TYPE_CHECKING:
    from torch import nn

    from segbatch.models.unwrap import StateDict


@dataclass(frozen=True)
class Backbone:
    """The part of a network that takes the weights of an ImageNet classifier.

    Attributes:
        timm: The classifier's name in timm.
        take: Called with the network (any with this backbone), the classifier's state dict and its source for
            messages. Copies the tensors into the network and returns their keys. Raises ``ModelError`` that lists what
            is missing or of another shape.
    """

    timm: str
    take: Callable[[Any, StateDict, str], list[str]]


def named_backbone(timm: str) -> Backbone:
    """Return the backbone of a network with a submodule ``backbone`` of torchvision's structure."""
    return Backbone(timm, partial(_take, timm))


def load(network: nn.Module, backbone: Backbone, uri: str, storage_options: Mapping[str, Any]) -> str:
    """Copy ImageNet weights into the backbone of ``network``.

    Args:
        uri: A classifier's state dict by torchvision or timm (for VGG16 also Caffe's); empty for timm's own.

    Returns:
        How many tensors were taken, and from where, for messages.

    Raises:
        ModelError: The weights cannot be read or downloaded, or do not fit.
        SpecError: timm is needed and not installed.
    """
    from segbatch.models import state_dict  # imports torch

    source = uri or f"timm's {backbone.timm}"
    if uri:
        state = state_dict.parse(read_uri(uri, "init", storage_options), uri)
    else:
        state = _timm_state(backbone.timm, pretrained=True)
    return f"{len(backbone.take(network, state, source))} tensors of {source}"


def _timm_state(name: str, pretrained: bool) -> StateDict:
    """The state dict of one of timm's networks, downloaded if ``pretrained``."""
    try:
        import timm
    except ImportError as e:
        raise SpecError("init: backbone needs timm, which is not installed; pip install timm") from e
    if not pretrained:
        return timm.create_model(name).state_dict()
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as e:  # storage boundary: the hub's client, the network and the file raise what they like
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ModelError(
            f"init: timm's weights of {name} are not available: {reason}. Download them where there is a network, then "
            "give --init backbone:URI of that file"
        ) from e


def _take(timm: str, network: nn.Module, state: StateDict, source: str) -> list[str]:
    """Copy the tensors of ``network.backbone``.

    Keys are torchvision's, or timm's, which names the same layers of MobileNet differently, in the same order: timm's
    own network gives the order, as a file may hold its tensors in any.
    """
    from segbatch.models import state_dict  # imports torch

    wanted = {k: v for k, v in network.state_dict().items() if k.startswith("backbone.") and not _is_counter(k)}
    given = {key.removeprefix("backbone.").removeprefix("features."): value for key, value in state.items()}
    names = {key: key.removeprefix("backbone.") for key in wanted}
    if not all(name in given for name in names.values()):
        order = [key for key in _timm_state(timm, pretrained=False) if not _is_counter(key)]
        names = dict(zip(wanted, order, strict=False))
    taken = {key: given[name] for key, name in names.items() if name in given}
    state_dict.check_keys(taken, wanted, source, "the backbone")
    network.load_state_dict(taken, strict=False)
    return list(taken)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
