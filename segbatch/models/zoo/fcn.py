"""FCN-32s, FCN-16s, FCN-8s, and FCN-8s trained at once: fully convolutional networks on VGG16.

Long, Shelhamer & Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015), sec. 3-4, layer by
layer as its Caffe definitions (voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce): conv1_1 pads by 100 pixels so that
fc6 fits into any image, and crops remove that padding again.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.unwrap import StateDict
from segbatch.models.zoo.caffe_names import conv_layers, from_caffe
from segbatch.models.zoo.vgg16 import VGG16, bilinear_kernel, crop, initialize

Finest = Literal[32, 16, 8]
# Factors of the features before they are scored, in the network that is trained at once.
_SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}


class BilinearUpsample(nn.Module):
    """Bilinear upsampling, (N, C, h, w) -> (N, C, stride (h - 1) + kernel, ...).

    Long et al. 2015, sec. 3.3. The weights are a buffer (C, C, kernel, kernel), as in Caffe's Deconvolution layer: zero
    off the diagonal, and not trained. A file of weights may contain others.
    """

    transposed = True

    def __init__(self, classes: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel, stride
        self.weight: Tensor
        self.register_buffer("weight", torch.eye(classes)[:, :, None, None] * bilinear_kernel(kernel))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, stride=self.stride)


class FixedScale(nn.Module):
    """Multiplication of (N, C, H, W) by a constant ``weight`` (C,), as an untrained Scale layer of Caffe."""

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


class FCN(VGG16):
    """FCN on VGG16: (N, 3, H, W) BGR minus the mean -> (N, classes, H, W) logits.

    Long et al. 2015, sec. 4.2, fig. 3. The centers of the network's own cells lie at 8 k - 23.5 (8s), not on the grid
    of ``protocols.Model``. Hence the scores have stride 1, where both grids agree, after the network's own upsampling:
    they equal Caffe's ``score``.

    Args:
        finest: Stride of the finest scores that are added: 32 (fc7 alone), 16 (and pool4) or 8 (and pool3).
        at_once: Scale pool4 by 0.01 and pool3 by 0.0001 before they are scored, as in the network trained in one stage.
        narrow: As for ``VGG16``.
    """

    def __init__(self, classes: int, *, finest: Finest = 8, at_once: bool = False, narrow: int = 1) -> None:
        super().__init__(first_padding=100, narrow=narrow)
        self.finest, hidden = finest, 4096 // narrow
        self.fc6 = nn.Conv2d(512 // narrow, hidden, 7)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.score_fr = nn.Conv2d(hidden, classes, 1)
        self.scale_pool4 = FixedScale(512 // narrow, _SCALES["scale_pool4"]) if at_once else nn.Identity()
        self.scale_pool3 = FixedScale(256 // narrow, _SCALES["scale_pool3"]) if at_once else nn.Identity()
        if finest == 32:
            self.upscore = BilinearUpsample(classes, 64, 32)
        else:
            self.upscore2 = BilinearUpsample(classes, 4, 2)
            self.score_pool4 = nn.Conv2d(512 // narrow, classes, 1)
        if finest == 16:
            self.upscore16 = BilinearUpsample(classes, 32, 16)
        if finest == 8:
            self.upscore_pool4 = BilinearUpsample(classes, 4, 2)
            self.score_pool3 = nn.Conv2d(256 // narrow, classes, 1)
            self.upscore8 = BilinearUpsample(classes, 16, 8)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        _, _, pool3, pool4, pool5 = self.features(x)
        y = F.dropout(F.relu(self.fc6(pool5)), 0.5, self.training)
        y = F.dropout(F.relu(self.fc7(y)), 0.5, self.training)
        y = self.score_fr(y)
        if self.finest == 32:
            return crop(self.upscore(y), 19, x)
        y = self.upscore2(y)
        y = y + crop(self.score_pool4(self.scale_pool4(pool4)), 5, y)
        if self.finest == 16:
            return crop(self.upscore16(y), 27, x)
        y = self.upscore_pool4(y)
        y = y + crop(self.score_pool3(self.scale_pool3(pool3)), 9, y)
        return crop(self.upscore8(y), 31, x)

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the coarsest scores, for the receptive field."""
        return [*self.trunk(), self.fc6, self.fc7, self.score_fr]


def _layers(finest: Finest, at_once: bool) -> dict[str, str]:
    """Names of Caffe's layers with blobs -> modules."""
    scores = {32: ["upscore"], 16: ["upscore2", "score_pool4", "upscore16"]}
    scores[8] = ["upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8"]
    scales = ["scale_pool4", "scale_pool3"] if at_once else []
    return {name: name for name in (*conv_layers(), "fc6", "fc7", "score_fr", *scores[finest], *scales)}


def convert(finest: Finest, at_once: bool, state: StateDict) -> StateDict:
    """Rename the keys of a file. PyTorch ports contain no scales: these are constants of the network."""
    converted = from_caffe(_layers(finest, at_once))(state)
    if at_once:
        for name, value in _SCALES.items():
            scored = converted.get(name.replace("scale", "score") + ".weight")
            if scored is not None and scored.ndim == 4:
                converted.setdefault(f"{name}.weight", torch.full((scored.shape[1],), value))
    return converted
