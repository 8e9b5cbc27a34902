"""MobileNetV2, the encoder of the built-in network, in plain torch: importing torchvision takes 2 s per worker.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), sec. 3 and table 2. Structure,
names of the parameters and initialization are torchvision's.
"""

from __future__ import annotations

from torch import Tensor, nn

# Table 2: expansion, channels, repetitions and stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1 as a classifier: (N, 3, H, W) normalized RGB -> (N, classes) logits.

    The classifier is part of it, although the built-in network takes ``features`` alone: the initialization of random
    weights (``--weights random``) draws its numbers too.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, stride=2)]
        inputs = 32
        for expansion, outputs, repetitions, first_stride in _STAGES:
            for stride in (first_stride, *[1] * (repetitions - 1)):
                blocks.append(InvertedResidual(inputs, outputs, stride, expansion))
                inputs = outputs
        self.features = nn.Sequential(*blocks, _conv_bn_relu6(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expand, filter by depth, project: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride).

    Sandler et al. 2018, sec. 3.3, table 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.is_residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv_bn_relu6(inputs, width, 1)] if expansion != 1 else []),
            _conv_bn_relu6(width, width, 3, stride=stride, groups=width),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


def _conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))
