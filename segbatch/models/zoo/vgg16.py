"""VGG16 and the layers that FCN, SegNet, DeconvNet, DeepLab v1, CRF-as-RNN and DPN share.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (ICLR 2015), table 1,
configuration D, as Caffe computes it: sizes are rounded down by convolutions and up by pooling. Modules have the names
of the layers in the Caffe definitions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.weights import CAFFE_BGR

# Channels and convolutions of each block.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def pool(kernel: int = 2, stride: int = 2, padding: int = 0, *, masks: bool = False) -> nn.MaxPool2d:
    """Return max pooling that rounds sizes up, as Caffe's does.

    Args:
        masks: Also return the positions of the maxima, for ``Unpool``.
    """
    return nn.MaxPool2d(kernel, stride, padding, ceil_mode=True, return_indices=masks)


class VGG16(nn.Module):
    """The layers conv1_1 to pool5 of VGG16; a base of networks.

    Simonyan & Zisserman 2015, table 1, configuration D.

    Args:
        pools: The five poolings; 2 x 2 with stride 2 by default.
        first_padding: Padding of conv1_1.
        conv5_dilation: Dilation of conv5_1 to conv5_3.
        batch_norm: Follow each convolution by batch normalization: ``conv1_1`` becomes ``conv1_1.conv, conv1_1.bn``.
        narrow: Divide the channels of all inner layers by this, for tests.
    """

    def __init__(
        self,
        *,
        pools: Sequence[nn.MaxPool2d] | None = None,
        first_padding: int = 1,
        conv5_dilation: int = 1,
        batch_norm: bool = False,
        narrow: int = 1,
    ) -> None:
        super().__init__()
        self.narrow = narrow
        inputs = 3
        for block, (channels, _) in enumerate(BLOCKS, 1):
            for name in self.names(block):
                dilation = conv5_dilation if block == 5 else 1
                padding = first_padding if name == "conv1_1" else dilation
                conv = nn.Conv2d(inputs, channels // narrow, 3, padding=padding, dilation=dilation)
                self.add_module(name, normalized(conv) if batch_norm else conv)
                inputs = channels // narrow
            self.add_module(f"pool{block}", pool() if pools is None else pools[block - 1])

    @staticmethod
    def names(block: int) -> list[str]:
        """Return the names of the convolutions of block 1 to 5, in order."""
        return [f"conv{block}_{i}" for i in range(1, BLOCKS[block - 1][1] + 1)]

    def block(self, block: int, x: Tensor) -> Tensor:
        """Apply the convolutions of a block, each followed by ReLU: (N, C, H, W) -> (N, channels, H, W)."""
        for name in self.names(block):
            x = F.relu(self.get_submodule(name)(x))
        return x

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of pool1 to pool5 for images (N, 3, H, W), if no pool returns masks."""
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
    """Unpooling: every value returns to where its maximum was, all other positions are 0.

    Badrinarayanan et al. 2015, fig. 3; Noh et al. 2015, sec. 3.2.1.
    """

    kernel_size, stride, transposed = 2, 2, True

    def forward(self, x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
        """Unpool (N, C, h, w) to (N, C, *size).

        Args:
            indices: Flat positions in the plane before pooling, as ``nn.MaxPool2d`` returns them.
            size: (height, width) of that plane, which does not follow from pooling that rounds up.
        """
        height, width = size
        plane = x.new_zeros(*x.shape[:2], height * width)
        return plane.scatter_(2, indices.flatten(2), x.flatten(2)).unflatten(2, (height, width))


def normalized(conv: nn.Module) -> nn.Sequential:
    """Return a convolution or transposed convolution followed by batch normalization."""
    layers = nn.Sequential()
    layers.add_module("conv", conv)
    layers.add_module("bn", nn.BatchNorm2d(conv.out_channels))  # type: ignore[arg-type]
    return layers


def initialize(network: nn.Module) -> None:
    """Initialize convolutions by He et al. 2015, eq. 10: variance 2 / fan-in, biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            if module.weight.device.type != "meta":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def pixels(x: Tensor) -> Tensor:
    """Return the images uint8 (N, H, W, 3) RGB from which ``CAFFE_BGR`` made (N, 3, H, W).

    For layers that need the image, as those of mean field do.
    """
    mean = torch.tensor(CAFFE_BGR.mean, dtype=x.dtype, device=x.device)[:, None, None]
    return (x.detach() + mean).round().clamp(0, 255).to(torch.uint8).flip(1).permute(0, 2, 3, 1).contiguous()


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Crop (N, C, H, W) from row and column ``offset`` on to the size of ``like``, as Caffe's Crop."""
    height, width = like.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


def bilinear_kernel(kernel: int) -> Tensor:
    """Return the weights float32 (kernel, kernel) of bilinear upsampling by a transposed convolution.

    Long et al. 2015, sec. 3.3. The kernel is centered on a pixel if its size is odd, else between two.
    """
    factor = (kernel + 1) // 2
    center = factor - 1.0 if kernel % 2 else factor - 0.5
    along = 1 - (torch.arange(kernel, dtype=torch.float32) - center).abs() / factor
    return along[:, None] * along
