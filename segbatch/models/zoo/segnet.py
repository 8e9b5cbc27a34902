"""SegNet and SegNet-Basic: encoder-decoders that unpool with the positions of the encoder's maxima.

Badrinarayanan, Kendall & Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation"
(arXiv 1511.00561; PAMI 2017), sec. 3 and 3.1, layer by layer as the Caffe definitions of the SegNet tutorial. Inputs
are raw BGR values of 0 to 255, as that data layer gave them; every pixel has scores.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.zoo.caffe_names import conv_layers, from_caffe
from segbatch.models.zoo.vgg16 import BLOCKS, VGG16, Unpool, initialize, normalized, pool

# Divides CamVid's 480 x 360: there every plane has the paper's size, which pooling rounds up.
_MULTIPLE = 8


class SegNet(VGG16):
    """SegNet, VGG16 and its mirror image: (N, 3, H, W) raw BGR -> (N, classes, H, W) logits.

    Badrinarayanan et al. 2015, sec. 3, fig. 2.

    Args:
        dropout: Probability of the dropout around poolings and unpoolings in training mode: 0.5 in the Pascal network.
    """

    def __init__(self, classes: int, *, dropout: float = 0.0, narrow: int = 1) -> None:
        super().__init__(pools=[pool(masks=True) for _ in BLOCKS], batch_norm=True, narrow=narrow)
        self.dropout = dropout
        for block in range(5, 0, -1):
            inputs = BLOCKS[block - 1][0] // narrow
            self.add_module(f"upsample{block}", Unpool())
            for name in self.decoder(block):
                last = name.endswith("_1_D")
                outputs = BLOCKS[max(block - 2, 0)][0] // narrow if last else inputs
                if name == "conv1_1_D":
                    self.conv1_1_D = nn.Conv2d(inputs, classes, 3, padding=1)
                else:
                    self.add_module(name, normalized(nn.Conv2d(inputs, outputs, 3, padding=1)))
        initialize(self)

    @staticmethod
    def decoder(block: int) -> list[str]:
        """Return the names of the decoder's convolutions of block 5 to 1: ``conv5_3_D, conv5_2_D, ...``"""
        return [f"{name}_D" for name in reversed(VGG16.names(block))]

    def forward(self, x: Tensor) -> Tensor:
        masks = []
        for block in range(1, 6):
            x = self._drop(self.block(block, x))
            size = x.shape[2:]
            x, indices = self.get_submodule(f"pool{block}")(x)
            masks.append((indices, size))
        for block in range(5, 0, -1):
            x = self.get_submodule(f"upsample{block}")(self._drop(x), *masks.pop())
            for name in self.decoder(block):
                x = self.get_submodule(name)(x)
                if name != "conv1_1_D":
                    x = F.relu(x)
        return x

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the scores, for the receptive field."""
        up = [name for block in range(5, 0, -1) for name in (f"upsample{block}", *self.decoder(block))]
        return [*self.trunk(), *(self.get_submodule(name) for name in up)]


class SegNetBasic(nn.Module):
    """SegNet-Basic: (N, 3, H, W) raw BGR -> (N, classes, H, W) logits.

    Badrinarayanan et al. 2015, sec. 3.1. Four encoders of 64 channels with kernels of 7 x 7, and four decoders, without
    ReLU as in the Caffe definition.
    """

    def __init__(self, classes: int, *, narrow: int = 1) -> None:
        super().__init__()
        width = 64 // narrow
        # Across channels. Caffe also divides alpha by the size of the window.
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        for level in range(1, 5):
            self.add_module(f"conv{level}", normalized(nn.Conv2d(3 if level == 1 else width, width, 7, padding=3)))
            self.add_module(f"pool{level}", pool(masks=True))
        for level in range(4, 0, -1):
            self.add_module(f"upsample{level}", Unpool())
            self.add_module(f"conv_decode{level}", normalized(nn.Conv2d(width, width, 7, padding=3)))
        self.conv_classifier = nn.Conv2d(width, classes, 1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x, masks = self.norm(x), []
        for level in range(1, 5):
            x = F.relu(self.get_submodule(f"conv{level}")(x))
            size = x.shape[2:]
            x, indices = self.get_submodule(f"pool{level}")(x)
            masks.append((indices, size))
        for level in range(4, 0, -1):
            x = self.get_submodule(f"upsample{level}")(x, *masks.pop())
            x = self.get_submodule(f"conv_decode{level}")(x)
        return self.conv_classifier(x)

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the scores, for the receptive field."""
        down = [f"{name}{level}" for level in range(1, 5) for name in ("conv", "pool")]
        up = [f"{name}{level}" for level in range(4, 0, -1) for name in ("upsample", "conv_decode")]
        return [self.get_submodule(name) for name in (*down, *up, "conv_classifier")]


def _pairs(names: list[str]) -> dict[str, str]:
    """Names of convolutions and of their BN layers (``NAME_bn``) in Caffe's definitions -> modules."""
    return {name: f"{name}.conv" for name in names} | {f"{name}_bn": f"{name}.bn" for name in names}


def _segnet_layers() -> dict[str, str]:
    decoder = [name for block in range(5, 0, -1) for name in SegNet.decoder(block) if name != "conv1_1_D"]
    return {**_pairs([*conv_layers(), *decoder]), "conv1_1_D": "conv1_1_D"}


def _basic_layers() -> dict[str, str]:
    names = [f"{name}{level}" for name in ("conv", "conv_decode") for level in range(1, 5)]
    return {**_pairs(names), "conv_classifier": "conv_classifier"}


convert = from_caffe(_segnet_layers())
convert_basic = from_caffe(_basic_layers())


def train_network(classes: int) -> SegNet:
    """Return the network as its authors trained it: with dropout for the 21 classes of PASCAL VOC."""
    return SegNet(classes, dropout=0.5 if classes == 21 else 0.0)
