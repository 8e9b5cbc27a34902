"""DeepLab v3+ on MobileNetV2: the built-in network.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation" (ECCV 2018), sec.
3.1-3.2, on Sandler et al., "MobileNetV2" (CVPR 2018). The encoder has output stride 16, the scores stride 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.mobilenet_v2 import MobileNetV2

_ASPP_RATES = (6, 12, 18)


def _conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(inputs), nn.ReLU(), *_conv_bn_relu(inputs, outputs))


def _backbone() -> nn.Sequential:
    """MobileNetV2 with its last stride replaced by dilation: (N, 3, H, W) -> (N, 320, H/16, W/16)."""
    features = MobileNetV2().features[:18]
    for block in features[14:]:
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                if conv.stride == (2, 2):
                    conv.stride = (1, 1)
                else:
                    conv.dilation, conv.padding = (2, 2), (2, 2)
    return features


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features: (N, 320, h, w) -> (N, 128, h, w).

    Chen et al. 2018, sec. 3.1.
    """

    def __init__(self, inputs: int = 320, width: int = 128) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [_conv_bn_relu(inputs, width), *(_separable(inputs, width, rate) for rate in _ASPP_RATES)]
        )
        self.pool = _conv_bn_relu(inputs, width)
        branches = len(self.convs) + 1
        self.project = nn.Sequential(_conv_bn_relu(branches * width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.project(torch.cat([*(conv(x) for conv in self.convs), pooled], dim=1))


class DeepLabV3Plus(nn.Module):
    """DeepLab v3+: (N, 3, H, W) normalized RGB -> (N, classes, H/4, W/4) logits.

    Chen et al. 2018, sec. 3.1, fig. 2. H and W must be multiples of 16.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = _backbone()
        self.low = _conv_bn_relu(24, 32)
        self.aspp = ASPP()
        self.decoder = nn.Sequential(_separable(160, 128), _separable(128, 128))
        self.classifier = nn.Conv2d(128, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The first two blocks compute in float32: their BatchNorms divide by tiny variances, so that rounding to
        # bf16 changed 1-5 % of the pixels; float32 costs 3 % of the time (see data/README.md).
        with torch.autocast(x.device.type, enabled=False):
            x = self.backbone[:2](x)
        x = self.backbone[2:4](x)
        low = self.low(x)
        high = self.aspp(self.backbone[4:](x))
        high = F.interpolate(high, low.shape[2:], mode="bilinear", align_corners=False)
        return self.classifier(self.decoder(torch.cat([high, low], dim=1)))
