"""Size, stride and position of receptive fields.

From the output to the image, ``r`` neighboring outputs of a layer see ``s (r - 1) + k`` of its inputs; a kernel with
dilation ``d`` acts as one of ``k + (k - 1)(d - 1)`` (Chen et al. 2015, "Semantic Image Segmentation with Deep
Convolutional Nets and Fully Connected CRFs", sec. 3.1). For a transposed layer, which writes ``k`` outputs every ``s``,
the direction is reversed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from torch import nn


@dataclass(frozen=True)
class Layer:
    """The properties of a layer along one axis on which the receptive field depends."""

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
    """The receptive field of scores.

    Attributes:
        size: Maximum number of pixels that a score depends on, along an axis.
        stride: Pixels from one score to the next.
        center: Pixel at the center of the field of score 0; negative in the padding.
    """

    size: int
    stride: Fraction
    center: Fraction


def receptive_field(layers: Iterable[Layer]) -> ReceptiveField:
    """Return the receptive field of the output of ``layers``, given from the image on."""
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
    """Return the convolutions, transposed convolutions and poolings among ``modules``, along one axis.

    An ``nn.Sequential`` is replaced by its modules; activations, normalization and dropout are skipped.

    Raises:
        ValueError: A layer is not square, or its ``kernel_size`` and ``stride`` are not known.
    """
    return [_layer(module) for module in _spatial(modules)]


def _spatial(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that move or mix pixels, in order."""
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
