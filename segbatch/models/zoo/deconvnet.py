"""DeconvNet: VGG16 down to one vector, and learned deconvolution and unpooling back to 224 x 224.

Noh, Hong & Han, "Learning Deconvolution Network for Semantic Segmentation" (ICCV 2015), sec. 3 and its appendix, layer
by layer as its Caffe definition.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.models.zoo.caffe_names import conv_layers, from_caffe
from segbatch.models.zoo.vgg16 import BLOCKS, VGG16, Unpool, initialize, normalized, pool

SIDE = 224
# Output channels of the deconvolutions of blocks 5 to 1.
_DECODER = {5: (512, 512, 512), 4: (512, 512, 256), 3: (256, 256, 128), 2: (128, 64), 1: (64, 64)}


class DeconvNet(VGG16):
    """DeconvNet: (N, 3, 224, 224) BGR minus the mean -> (N, classes, 224, 224) logits.

    Noh et al. 2015, sec. 3. No other size is possible, as fc6 covers the whole window. Larger images are scored in
    windows of 224 x 224 at their own scale, on a sliding grid; the paper scales object proposals to that size instead
    (``edeconvnet``).
    """

    def __init__(self, classes: int, *, narrow: int = 1) -> None:
        super().__init__(pools=[pool(masks=True) for _ in BLOCKS], batch_norm=True, narrow=narrow)
        hidden, width = 4096 // narrow, 512 // narrow
        self.fc6 = normalized(nn.Conv2d(width, hidden, 7))
        self.fc7 = normalized(nn.Conv2d(hidden, hidden, 1))
        self.fc6_deconv = normalized(nn.ConvTranspose2d(hidden, width, 7))
        for block, outputs in _DECODER.items():
            self.add_module(f"unpool{block}", Unpool())
            for name, channels in zip(self.decoder(block), outputs, strict=True):
                deconv = nn.ConvTranspose2d(width, channels // narrow, 3, padding=1)
                self.add_module(name, normalized(deconv))
                width = channels // narrow
        self.seg_score = nn.Conv2d(width, classes, 1)
        initialize(self)

    @staticmethod
    def decoder(block: int) -> list[str]:
        """Return the names of the deconvolutions of block 5 to 1: ``deconv5_1, deconv5_2, ...``"""
        return [f"deconv{block}_{i}" for i in range(1, len(_DECODER[block]) + 1)]

    def forward(self, x: Tensor) -> Tensor:
        masks = []
        for block in range(1, 6):
            x = self.block(block, x)
            size = x.shape[2:]
            x, indices = self.get_submodule(f"pool{block}")(x)
            masks.append((indices, size))
        for layer in (self.fc6, self.fc7, self.fc6_deconv):
            x = F.relu(layer(x))
        for block in _DECODER:
            x = self.get_submodule(f"unpool{block}")(x, *masks.pop())
            for name in self.decoder(block):
                x = F.relu(self.get_submodule(name)(x))
        return self.seg_score(x)

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the scores, for the receptive field."""
        up = [name for block in _DECODER for name in (f"unpool{block}", *self.decoder(block))]
        ends = [self.fc6, self.fc7, self.fc6_deconv]
        return [*self.trunk(), *ends, *(self.get_submodule(name) for name in up), self.seg_score]


def _layers() -> dict[str, str]:
    """Names of Caffe's layers with blobs -> modules."""
    layers = {"fc6": "fc6.conv", "bnfc6": "fc6.bn", "fc7": "fc7.conv", "bnfc7": "fc7.bn"}
    layers |= {"fc6-deconv": "fc6_deconv.conv", "fc6-deconv-bn": "fc6_deconv.bn", "seg-score*": "seg_score"}
    for name in conv_layers():
        layers |= {name: f"{name}.conv", name.replace("conv", "bn"): f"{name}.bn"}
    for name in (name for block in _DECODER for name in DeconvNet.decoder(block)):
        layers |= {name: f"{name}.conv", name.replace("deconv", "debn"): f"{name}.bn"}
    return layers


convert = from_caffe(_layers())
