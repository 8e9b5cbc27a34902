"""The VGG16 trunk that FCN, SegNet, DeconvNet and DeepLab v1 share, and what else they have in common.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (ICLR 2015),
configuration D, as Caffe computes it: convolutions round sizes down, pooling rounds them up. Layers have the
names of the Caffe definitions, so that state dicts read like them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.weights import Preprocess

# Channels and convolutions of each block.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# Caffe's mean of ImageNet, in BGR; values stay in 0…255.
CAFFE_BGR = Preprocess((104.00698793, 116.66876762, 122.67891434), scale=1.0, bgr=True)
# For networks whose scores are the size of the image: 21 classes of 2**20 pixels are 88 MB.
TILE_PIXELS = 2**20


def pool(kernel: int = 2, stride: int = 2, padding: int = 0, *, masks: bool = False) -> nn.MaxPool2d:
    """Max-pooling as in Caffe: sizes round up. ``masks`` returns where the maxima were, too."""
    return nn.MaxPool2d(kernel, stride, padding, ceil_mode=True, return_indices=masks)


class VGG16(nn.Module):
    """conv1_1 to pool5 of VGG16. Networks derive from it, and add what comes after.

    ``pools`` are the five poolings (default: 2 x 2, stride 2); ``first_padding`` is that of conv1_1,
    ``conv5_hole`` the dilation of conv5_1 to conv5_3. ``batch_norm`` follows each convolution with one, which
    makes ``conv1_1`` the pair ``conv1_1.conv, conv1_1.bn``. ``narrow`` divides the channels of all inner
    layers, for tests.
    """

    def __init__(
        self,
        *,
        pools: Sequence[nn.MaxPool2d] | None = None,
        first_padding: int = 1,
        conv5_hole: int = 1,
        batch_norm: bool = False,
        narrow: int = 1,
    ) -> None:
        super().__init__()
        self.narrow = narrow
        inputs = 3
        for block, (channels, _) in enumerate(BLOCKS, 1):
            for name in self.names(block):
                hole = conv5_hole if block == 5 else 1
                padding = first_padding if name == "conv1_1" else hole
                conv = nn.Conv2d(inputs, channels // narrow, 3, padding=padding, dilation=hole)
                self.add_module(name, normalized(conv) if batch_norm else conv)
                inputs = channels // narrow
            self.add_module(f"pool{block}", pool() if pools is None else pools[block - 1])

    @staticmethod
    def names(block: int) -> list[str]:
        """Names of the convolutions of block 1 to 5, in order."""
        return [f"conv{block}_{i}" for i in range(1, BLOCKS[block - 1][1] + 1)]

    def block(self, block: int, x: Tensor) -> Tensor:
        """The convolutions of one block, each followed by ReLU: (N, C, H, W) -> (N, channels, H, W)."""
        for name in self.names(block):
            x = F.relu(self.get_submodule(name)(x))
        return x

    def features(self, x: Tensor) -> list[Tensor]:
        """Outputs of pool1 to pool5 for images (N, 3, H, W); not for pools that return masks."""
        pooled = []
        for block in range(1, 6):
            x = self.get_submodule(f"pool{block}")(self.block(block, x))
            pooled.append(x)
        return pooled

    def trunk(self) -> list[nn.Module]:
        """Return the layers from conv1_1 to pool5, for the receptive field."""
        names = [name for block in range(1, 6) for name in (*self.names(block), f"pool{block}")]
        return [self.get_submodule(name) for name in names]


class Unpool(nn.Module):
    """Puts each value back where its maximum was, zeros elsewhere (Badrinarayanan et al. 2015; Noh et al. 2015).

    ``indices`` are positions in the plane before pooling, flat, as ``nn.MaxPool2d`` returns them; ``size`` is
    that plane's (height, width), which pooling that rounds up does not tell.
    """

    kernel_size, stride, transposed = 2, 2, True

    def forward(self, x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
        height, width = size
        plane = x.new_zeros(*x.shape[:2], height * width)
        return plane.scatter_(2, indices.flatten(2), x.flatten(2)).unflatten(2, (height, width))


def normalized(conv: nn.Module) -> nn.Sequential:
    """A convolution (or transposed one) and the batch normalization of what comes out of it."""
    layers = nn.Sequential()
    layers.add_module("conv", conv)
    layers.add_module("bn", nn.BatchNorm2d(conv.out_channels))  # type: ignore[arg-type]
    return layers


def initialize(network: nn.Module) -> None:
    """He et al. 2015: random weights that keep the scale of what passes through ReLUs; biases zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            if module.weight.device.type != "meta":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pixels(x: Tensor) -> Tensor:
    """What ``CAFFE_BGR`` made (N, 3, H, W) from, as uint8 (N, H, W, 3) RGB, for layers that look at the image."""
    mean = torch.tensor(CAFFE_BGR.mean, dtype=x.dtype, device=x.device)[:, None, None]
    return (x.detach() + mean).round().clamp(0, 255).to(torch.uint8).flip(1).permute(0, 2, 3, 1).contiguous()


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Caffe's Crop: rows and columns from ``offset`` on, as many as ``like`` has."""
    height, width = like.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


def bilinear_kernel(kernel: int) -> Tensor:
    """Weights float32 (kernel, kernel) with which a transposed convolution interpolates linearly.

    Long et al. 2015, section 3.3; for an odd factor the kernel is centered on a pixel, else between two.
    """
    factor = (kernel + 1) // 2
    center = factor - 1.0 if kernel % 2 else factor - 0.5
    along = 1 - (torch.arange(kernel, dtype=torch.float32) - center).abs() / factor
    return along[:, None] * along
