"""How much of the image one score sees, how far apart the scores are, and where they lie: pure arithmetic.

Going down from the output, ``r`` neighboring outputs of a layer see ``s (r - 1) + k`` of its inputs; an
atrous kernel of hole (dilation) ``h`` acts as one of ``k + (k - 1)(h - 1)`` (Chen et al. 2015, "Semantic Image
Segmentation with Deep Convolutional Nets and Fully Connected CRFs", section 3.1). A transposed layer, which
writes ``k`` outputs every ``s``, goes the other way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from torch import nn


@dataclass(frozen=True)
class Layer:
    """One layer along an axis: what the receptive field depends on. ``transposed`` layers enlarge."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False

    @property
    def extent(self) -> int:
        """Pixels from the first to the last tap of the kernel, inclusive."""
        return self.kernel + (self.kernel - 1) * (self.dilation - 1)


@dataclass(frozen=True)
class ReceptiveField:
    """``size`` pixels of the image that a score sees at most, ``stride`` pixels from one score to the next.

    ``center`` is the pixel at the middle of what score 0 sees; negative where it lies in the padding.
    """

    size: int
    stride: Fraction
    center: Fraction


def receptive_field(layers: Iterable[Layer]) -> ReceptiveField:
    """The receptive field of the output of ``layers``, which are given from the image on."""
    layers = list(layers)
    size = 1
    for layer in reversed(layers):
        if layer.transposed:
            size = (size + layer.extent - 2) // layer.stride + 1
        else:
            size = layer.stride * (size - 1) + layer.extent
    stride, center = Fraction(1), Fraction(0)
    for layer in layers:
        middle = Fraction(layer.extent - 1, 2) - layer.padding
        if layer.transposed:
            stride /= layer.stride
            middle = -middle
        center += middle * stride
        if not layer.transposed:
            stride *= layer.stride
    return ReceptiveField(size, stride, center)


def layers_of(modules: Iterable[nn.Module]) -> list[Layer]:
    """The layers among ``modules`` along one axis: convolutions, transposed ones, and pooling.

    An ``nn.Sequential`` stands for what is in it; activations, normalization and dropout are passed over.
    Raises ``ValueError`` for a layer that is not square, and for one it does not know.
    """
    return [_layer(module) for module in _spatial(modules)]


def _spatial(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that move or mix pixels, in order, ``nn.Sequential`` opened."""
    found: list[nn.Module] = []
    for module in modules:
        if isinstance(module, nn.Sequential):
            found += _spatial(module)
        elif not isinstance(module, (nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Identity, nn.LocalResponseNorm)):
            found.append(module)
    return found


def _layer(module: nn.Module) -> Layer:
    if not hasattr(module, "kernel_size") or not hasattr(module, "stride"):
        raise ValueError(f"{type(module).__name__} has no kernel_size and stride; its receptive field is unknown")
    kernel, stride = _square(module, "kernel_size", 1), _square(module, "stride", 1)
    padding, dilation = _square(module, "padding", 0), _square(module, "dilation", 1)
    transposed = isinstance(module, nn.ConvTranspose2d) or getattr(module, "transposed", False) is True
    return Layer(kernel, stride, padding, dilation, transposed)


def _square(module: nn.Module, name: str, default: int) -> int:
    value = getattr(module, name, default)
    sides = set(value) if isinstance(value, tuple) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError(f"{type(module).__name__}.{name} is {value!r}; only square layers are supported")
    return side
