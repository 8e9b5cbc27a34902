"""CRF-as-RNN: FCN-8s with the mean field of a dense CRF as its last layers, trained together.

Zheng et al., "Conditional Random Fields as Recurrent Neural Networks" (ICCV 2015), sec. 3-5, as the authors' Caffe
definition and layer compute it: an older FCN-8s, whose upsampling of scores is trained, followed by the layer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from segbatch.crf.torch_mean_field import MeanField
from segbatch.models import state_dict
from segbatch.models.unwrap import StateDict
from segbatch.models.zoo.caffe_names import conv_layers, from_caffe
from segbatch.models.zoo.fcn import FCN
from segbatch.models.zoo.vgg16 import bilinear_kernel, pixels

# The three blobs of Caffe's MultiStageMeanfield layer, and their names in the authors' PyTorch port.
_BLOBS = {"inference1/0": "spatial", "inference1/1": "bilateral", "inference1/2": "compatibility"}
_PORT = {
    "crfrnn.spatial_ker_weights": "spatial",
    "crfrnn.bilateral_ker_weights": "bilateral",
    "crfrnn.compatibility_matrix": "compatibility",
}


class CRFasRNN(FCN):
    """CRF-as-RNN: (N, 3, H, W) BGR minus the mean -> (N, classes, H, W) logits after mean field.

    Zheng et al. 2015, sec. 4-5. The layer ``crf`` receives ``x`` with the mean added, rounded to whole levels. (The
    authors' layer receives BGR minus the mean: the same Gaussians on a shifted lattice.) In eval mode on a CPU one
    image is refined at a time, which is as fast and bounds the memory: about 0.5 KB per pixel and 30 bytes per pixel
    and label.

    Args:
        iterations: Steps of mean field in eval mode.
        train_iterations: Steps of mean field in training mode.
        diagonal: As for ``MeanField``.
    """

    def __init__(
        self,
        classes: int,
        *,
        iterations: int = 10,
        train_iterations: int = 5,
        diagonal: bool = False,
        narrow: int = 1,
    ) -> None:
        super().__init__(classes, finest=8, narrow=narrow)
        # score2 and score4 of the older FCN-8s: initially bilinear, and trained; score2 has a bias.
        self.add_module("upscore2", _learned_upsample(classes, bias=True))
        self.add_module("upscore_pool4", _learned_upsample(classes, bias=False))
        self.crf = MeanField(classes, iterations, train_iterations, diagonal=diagonal)

    def forward(self, x: Tensor) -> Tensor:
        scores, images = super().forward(x), pixels(x)
        if self.training or x.device.type != "cpu":
            return self.crf(images, scores)
        each = zip(images.split(1), scores.split(1), strict=True)
        return torch.cat([self.crf(image, score) for image, score in each])


def mean_field_state(state: StateDict) -> StateDict:
    """Return the parameters of ``MeanField`` in a state dict of any kind that ``convert`` reads."""
    found: StateDict = {}
    for key, value in state.items():
        if key in _BLOBS:
            found[_BLOBS[key]] = value.reshape(value.shape[-2:]) if value.shape[:-2] == (1, 1) else value
        elif key in _PORT:
            # The port adds the term that Caffe's layer subtracts.
            found[_PORT[key]] = -value if key.endswith("compatibility_matrix") else value
        elif key.removeprefix("crf.") in _BLOBS.values():
            found[key.removeprefix("crf.")] = value
    return found


def couplings(data: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return C·Ws (spatial) and C·Wb (bilateral), float32 (C, C), of the layer in a file of weights.

    Args:
        data: The file's content, which may hold a whole network beside the layer.
        source: The file's URI, for messages.

    Raises:
        ModelError: Lists what is missing or of another shape.
    """
    state = mean_field_state(state_dict.parse(data, source))
    compatibility = state.get("compatibility")
    classes = len(compatibility) if compatibility is not None and compatibility.ndim else 1
    diagonal = all(state[name].ndim == 1 for name in ("spatial", "bilateral") if name in state)
    with torch.device("meta"):  # a file may claim any number of classes
        layer = MeanField(classes if 0 < classes < 2**15 else 1, diagonal=diagonal)
    state_dict.check(state, layer, source, "the layer of CRF-as-RNN")
    state_dict.check_finite(state, source)
    layer.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    spatial, bilateral = (coupling.detach().numpy() for coupling in layer.couplings())
    return spatial, bilateral


def _learned_upsample(classes: int, bias: bool) -> nn.ConvTranspose2d:
    """Upsampling by a factor of 2 whose initial weights are bilinear and separate for each class."""
    up = nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=bias)
    up.weight = nn.Parameter(torch.eye(classes)[:, :, None, None] * bilinear_kernel(4))
    if up.bias is not None:
        nn.init.zeros_(up.bias)
    return up


def _layers() -> dict[str, str]:
    """Older names of Caffe's layers with blobs -> modules."""
    older = {
        "score-fr": "score_fr",
        "score2": "upscore2",
        "score-pool4": "score_pool4",
        "score4": "upscore_pool4",
        "score-pool3": "score_pool3",
        "upsample": "upscore8",
    }
    return {name: name for name in (*conv_layers(), "fc6", "fc7")} | older


def convert(state: StateDict) -> StateDict:
    """Rename the keys of TVG_CRFRNN_COCO_VOC.caffemodel, or of its PyTorch port."""
    network = {key: value for key, value in state.items() if key not in _BLOBS and key not in _PORT}
    layers = {key: value for key, value in state.items() if key not in network}
    return from_caffe(_layers())(network) | {f"crf.{name}": value for name, value in mean_field_state(layers).items()}
