"""DeepLab v1 on VGG16: the basic network, LargeFOV, and LargeFOV with multi-scale scores (MSc).

Chen, Papandreou, Kokkinos, Murphy & Yuille, "Semantic Image Segmentation with Deep Convolutional Nets and Fully
Connected CRFs" (ICLR 2015), sec. 3 and 4.3, layer by layer as its Caffe definitions. The basic network and LargeFOV
differ in fc6 and in all of their pooling. A dense CRF is meant to follow.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.zoo.caffe_names import conv_layers, from_caffe
from segbatch.models.zoo.vgg16 import BLOCKS, VGG16, crop, initialize, pool

STRIDE = 8


class _DeepLab(VGG16):
    """Dilated VGG16 with scores at stride 8, upsampled as by Caffe's Interp layer and cropped.

    Chen et al. 2015, sec. 3.1. The cells lie at pixels 8 k - offset, not on the grid of ``protocols.Model``: scores are
    returned at stride 1, where both grids agree.

    Attributes:
        remainder: The image is padded by the mean (zero) at the bottom and right until its sides are 8 m + remainder,
            such as the authors' 514 and 513.
        offset: Rows and columns of the upsampled scores before the image begins.
    """

    remainder: int
    offset: int

    def coarse(self, x: Tensor) -> Tensor:
        """Return the scores (N, classes, h, w) on the network's own grid, on which it is trained."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        right, bottom = ((self.remainder - side) % STRIDE for side in (width, height))
        y = self.coarse(F.pad(x, (0, right, 0, bottom)))
        size = [(side - 1) * STRIDE + 1 for side in y.shape[2:]]
        y = F.interpolate(y, size, mode="bilinear", align_corners=True)
        return crop(y, self.offset, x)


class DeepLab(_DeepLab):
    """DeepLab v1: (N, 3, H, W) BGR minus the mean -> (N, classes, H, W) logits.

    Chen et al. 2015, sec. 3. fc6 has a kernel of 4 x 4 with dilation 4.

    Args:
        pool4_padding: 1 as in the authors' test network; 0 in their training network, whose scores are one fewer along
            each axis.
    """

    remainder, offset = 2, 7

    def __init__(self, classes: int, *, pool4_padding: int = 1, narrow: int = 1) -> None:
        pools = [*(pool(2, 2, 1) for _ in range(3)), pool(2, 1, pool4_padding), pool(3, 1, 1)]
        super().__init__(pools=pools, conv5_dilation=2, narrow=narrow)
        hidden = 4096 // narrow
        self.fc6 = nn.Conv2d(512 // narrow, hidden, 4, padding=6, dilation=4)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.fc8 = nn.Conv2d(hidden, classes, 1)
        initialize(self)

    def coarse(self, x: Tensor) -> Tensor:
        y = F.dropout(F.relu(self.fc6(self.features(x)[-1])), 0.5, self.training)
        y = F.dropout(F.relu(self.fc7(y)), 0.5, self.training)
        return self.fc8(y)

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the scores, for the receptive field."""
        return [*self.trunk(), self.fc6, self.fc7, self.fc8]


class DeepLabLargeFOV(_DeepLab):
    """DeepLab v1 LargeFOV: (N, 3, H, W) BGR minus the mean -> (N, classes, H, W) logits.

    Chen et al. 2015, sec. 3.2. fc6 has a kernel of 3 x 3 with dilation 12.

    Args:
        multi_scale: Add the scores of five branches, from the image and from pool1 to pool4 (MSc, sec. 4.3).
    """

    remainder, offset = 1, 0

    def __init__(self, classes: int, *, multi_scale: bool = False, narrow: int = 1) -> None:
        super().__init__(pools=[pool(3, stride, 1) for stride in (2, 2, 2, 1, 1)], conv5_dilation=2, narrow=narrow)
        self.multi_scale, hidden = multi_scale, 1024 // narrow
        self.pool5a = nn.AvgPool2d(3, 1, 1)
        self.fc6 = nn.Conv2d(512 // narrow, hidden, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.fc8 = nn.Conv2d(hidden, classes, 1)
        if multi_scale:
            inputs = (3, *(channels // narrow for channels, _ in BLOCKS[:4]))
            for name, channels, stride in zip(BRANCHES, inputs, (8, 4, 2, 1, 1), strict=True):
                width = 128 // narrow
                self.add_module(f"{name}_conv", nn.Conv2d(channels, width, 3, stride, 1))
                self.add_module(f"{name}_fc", nn.Conv2d(width, width, 1))
                self.add_module(f"{name}_ms", nn.Conv2d(width, classes, 1))
        initialize(self)

    def coarse(self, x: Tensor) -> Tensor:
        pooled = self.features(x)
        y = F.dropout(F.relu(self.fc6(self.pool5a(pooled[-1]))), 0.5, self.training)
        y = F.dropout(F.relu(self.fc7(y)), 0.5, self.training)
        y = self.fc8(y)
        if self.multi_scale:
            for name, features in zip(BRANCHES, [x, *pooled[:4]], strict=True):
                y = y + self._branch(name, features)
        return y

    def _branch(self, name: str, x: Tensor) -> Tensor:
        for layer in (f"{name}_conv", f"{name}_fc"):
            x = F.dropout(F.relu(self.get_submodule(layer)(x)), 0.5, self.training)
        return self.get_submodule(f"{name}_ms")(x)

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the scores of fc8, which have the largest receptive field."""
        return [*self.trunk(), self.pool5a, self.fc6, self.fc7, self.fc8]


BRANCHES = ("data", "pool1", "pool2", "pool3", "pool4")


def multi_scale(classes: int, *, narrow: int = 1) -> DeepLabLargeFOV:
    """Build DeepLab v1 LargeFOV with the MSc branches."""
    return DeepLabLargeFOV(classes, multi_scale=True, narrow=narrow)


def _layers(multi_scale: bool = False) -> dict[str, str]:
    """Names of Caffe's layers with blobs -> modules. Names of score layers end in that of the data set.

    The names of the MSc branches (``pool1_conv, pool1_fc, pool1_ms_*``) are those of networks derived from it, and
    ``data_*`` follows from them: the definition itself was not available.
    """
    layers = {name: name for name in (*conv_layers(), "fc6", "fc7")} | {"fc8_*": "fc8"}
    for name in BRANCHES if multi_scale else ():
        layers |= {f"{name}_conv": f"{name}_conv", f"{name}_fc": f"{name}_fc", f"{name}_ms_*": f"{name}_ms"}
    return layers


convert = from_caffe(_layers())
convert_multi_scale = from_caffe(_layers(multi_scale=True))


def coarse_scores(network: _DeepLab, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores on the network's own grid, and subsampled labels.

    Chen et al. 2015, sec. 3.1. Cells beyond the labels are cut off.
    """
    height, width = x.shape[2:]
    right, bottom = ((network.remainder - side) % STRIDE for side in (width, height))
    scores = network.coarse(F.pad(x, (0, right, 0, bottom)))
    first = -network.offset % STRIDE
    truth = truth[:, first::STRIDE, first::STRIDE]
    rows, columns = (min(sides) for sides in zip(scores.shape[2:], truth.shape[1:], strict=True))
    return scores[:, :, :rows, :columns], truth[:, :rows, :columns]
