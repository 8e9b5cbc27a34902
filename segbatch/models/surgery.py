"""À trous surgery: a network's strides become holes, so that it scores densely with the weights it has.

Chen et al. 2015 (DeepLab), section 3.1: skip the subsampling after a layer, and put zeros between the taps of
all kernels after it. The scores at every ``k``-th position are those the network had before; the scores
between are those it would have had for the shifted image.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from segbatch.models.zoo.receptive_field import layers_of, spatial


def turn_strides_into_holes(modules: Iterable[nn.Module], stride: int) -> int:
    """Change layers in place so that no more than ``stride`` pixels lie between two of their outputs.

    ``modules``: convolutions and max-pooling from the image on, as a network's ``path()`` lists them. Returns
    the hole (dilation) by which the last layers were widened, 1 if nothing changed. Raises ``ValueError``,
    before anything is changed, where the strides cannot make ``stride``, or a layer cannot have holes.
    """
    layers = spatial(modules)
    reached, hole = 1, 1
    changes: list[tuple[nn.Module, int, int]] = []
    for module, layer in zip(layers, layers_of(layers), strict=True):
        if layer.transposed:
            raise ValueError(f"{type(module).__name__} enlarges; give the layers before it only")
        if hole > 1 and layer.kernel > 1 and not isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            raise ValueError(f"{type(module).__name__} cannot have holes; put it before the stride is reached")
        if reached * layer.stride <= stride:
            reached *= layer.stride
            changes.append((module, layer.stride, hole))
        else:
            changes.append((module, 1, hole))
            hole *= layer.stride
    if reached != stride:
        raise ValueError(f"strides multiply to {reached * hole} and reach {reached}, not {stride}")
    for module, step, widened in changes:
        _set(module, step, widened)
    return hole


def _set(module: nn.Module, stride: int, hole: int) -> None:
    if isinstance(module, nn.Conv2d):
        module.stride = (stride, stride)
        module.dilation = (module.dilation[0] * hole, module.dilation[1] * hole)
        assert isinstance(module.padding, tuple)
        module.padding = (module.padding[0] * hole, module.padding[1] * hole)
    elif isinstance(module, nn.MaxPool2d):
        module.stride = stride
        module.dilation = layers_of([module])[0].dilation * hole
        module.padding = layers_of([module])[0].padding * hole
    elif isinstance(module, nn.AvgPool2d):
        module.stride = stride
