"""The contract for networks that are too large to run often, with an eighth of their channels; and their sizes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from segbatch.labels import VOC_LABELS
from segbatch.models import MODELS
from segbatch.models.runner import TorchModel
from tests.models.contract import ModelContract, photo

NARROW = 16
SMALL = [(1, 1), (33, 1), (17, 101), (65, 64)]


class NarrowContract(ModelContract):
    """Subclass it with the ``name`` of a network whose builder takes ``narrow``."""

    sizes = SMALL
    options: ClassVar[dict[str, Any]] = {}  # of the network, further

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def narrowed(cls) -> Iterator[None]:
        module_name, _, attribute = MODELS[cls.name].partition(":")
        module = importlib.import_module(module_name)
        entry = getattr(module, attribute)
        with pytest.MonkeyPatch.context() as patch:
            network = partial(entry.network, narrow=NARROW, **cls.options)
            patch.setattr(module, attribute, replace(entry, network=network, labels=VOC_LABELS))
            yield


class DenseContract(NarrowContract):
    """The same for a network that is convolutional from end to end, whatever lies between its scores."""

    def test_cells_lie_where_the_grid_says(self, model: TorchModel) -> None:
        """A picture moved left by the deepest stride has its scores moved as far, to rounding, and no farther.

        At least half a receptive field lies between these scores and the moved border.
        """
        deepest, reach = 32, 224
        assert model.stride == 1
        image = photo(33, 2 * reach + 4 * deepest)
        full, moved = model.scores([image, image[:, deepest:]])
        expected, got = full[:, :, reach + deepest : -reach], moved[:, :, reach:-reach]
        scale = np.abs(expected).max()
        assert got.shape[2] >= 48
        assert np.abs(got - expected).max() < 1e-4 * scale
        assert np.abs(got[:, :, 1:] - expected[:, :, :-1]).max() > 1e-3 * scale


def on_meta(build: Callable[..., nn.Module], *args: Any, **options: Any) -> nn.Module:
    """A network of full size without memory, in eval mode: its shapes and parameters are real."""
    with torch.device("meta"):
        return build(*args, **options).eval()


def sides(network: nn.Module, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """(height, width) of what comes out of every module, by name, for an image of that size; "" is the network."""
    found: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[name] = tuple((output[0] if isinstance(output, tuple) else output).shape[-2:])

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        network(torch.empty(1, 3, height, width, device="meta"))
    for handle in handles:
        handle.remove()
    return found


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
