"""DPN: a VGG16 for the unary term, and one step of mean field as convolution and pooling after it.

Liu, Li, Luo, Loy & Tang, "Semantic Image Segmentation via Deep Parsing Network" (ICCV 2015), sec. 4; b1 to b15 are the
paper's names of the layers. ``Parsing`` states what the paper leaves open, and what differs from it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from segbatch.models import state_dict
from segbatch.models.zoo.caffe_names import conv_layers, from_caffe
from segbatch.models.zoo.vgg16 import VGG16, crop, initialize, pixels, pool

STRIDE = 8
MIXTURES = 5
_CONTEXT = 9  # side of b13's filters
_TILE = 8  # side in pixels of the tiles that share one table of weights in b12
_MAX_WEIGHTS = 2**18  # of b12 at once: they fit into a processor's cache


class LocalFilter(nn.Module):
    """b12: the mean over a window around each pixel, weighted by proximity in position and color.

    Liu et al. 2015, sec. 4.1. The weights are d(j, z) = exp(-|p_j - p_z|² / 2 theta_alpha² - |I_j - I_z|² / 2
    theta_beta²), divided by their sum over the pixels inside the image. Nothing is trained: all classes and images
    share the weights.

    Args:
        window: Side of the window in pixels, which begins ``window // 2`` before the pixel.
        theta_alpha: Standard deviation of the position in pixels.
        theta_beta: Standard deviation of the color in levels.
    """

    stride = 1

    def __init__(self, window: int = 50, theta_alpha: float = 12.0, theta_beta: float = 10.0) -> None:
        super().__init__()
        self.kernel_size, self.theta_alpha, self.theta_beta = window, theta_alpha, theta_beta

    def forward(self, images: Tensor, values: Tensor) -> Tensor:
        """Filter values (B, C, H, W) by images uint8 (B, H, W, 3). Differentiable in the values."""
        height, width = values.shape[2:]
        before, side = self.kernel_size // 2, _TILE + self.kernel_size - 1
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        bottom, right = (n * _TILE + side - _TILE - before - m for n, m in ((rows, height), (columns, width)))
        pad = (before, right, before, bottom)
        guide = F.pad(images.permute(0, 3, 1, 2).to(values.dtype) / self.theta_beta, pad)
        # A channel of ones becomes the sum of the weights inside the image.
        known = F.pad(torch.cat([values, torch.ones_like(values[:, :1])], 1), pad)
        places = self._places(side, values)
        needs_gradient = torch.is_grad_enabled() and values.requires_grad
        strips = []
        for top in range(0, rows * _TILE, _TILE):
            strip = guide[:, :, top : top + side], known[:, :, top : top + side], places
            # The weights take 100 times the memory of the values: they are recomputed in the backward pass.
            strips.append(recompute(_strip, *strip, use_reentrant=False) if needs_gradient else _strip(*strip))
        filtered = torch.cat(strips, 2)[:, :, :height, :width]
        return filtered[:, :-1] / filtered[:, -1:]

    def _places(self, side: int, like: Tensor) -> Tensor:
        """Logarithm of the weights by position, (pixels of a tile, of its window); -inf beyond the window."""
        at, before = torch.arange(side, device=like.device), self.kernel_size // 2
        gap = at - before - torch.arange(_TILE, device=like.device)[:, None]
        inside = (gap >= -before) & (gap < self.kernel_size - before)
        along = torch.where(inside, -(gap.to(like.dtype) ** 2) / (2 * self.theta_alpha**2), -math.inf)
        return (along[:, None, :, None] + along[None, :, None, :]).reshape(_TILE**2, side**2)


def _strip(guide: Tensor, known: Tensor, places: Tensor) -> Tensor:
    """Filter a row of tiles: colors, values (B, *, side, W + side - tile) -> sums (B, *, tile, W)."""
    batch, channels, side, _ = known.shape
    before = (side - _TILE + 1) // 2

    def surroundings(x: Tensor) -> Tensor:
        return x.unfold(3, side, _TILE).permute(0, 3, 2, 4, 1).reshape(-1, side * side, x.shape[1])

    colors, values = surroundings(guide), surroundings(known)
    inner = slice(before, before + _TILE)
    own = colors.unflatten(1, (side, side))[:, inner, inner].flatten(1, 2)
    middle = own.mean(1, keepdim=True)  # near 0, squares cancel without loss
    own, colors = own - middle, colors - middle
    # (a, -|a|²/2, 1) · (b, 1, -|b|²/2) = -|a - b|²/2
    own, colors = _with(own, own.square().sum(2) / -2, 1), _with(colors, 1, colors.square().sum(2) / -2)
    sums = []
    step = max(1, _MAX_WEIGHTS // places.numel())
    for a, b, v in zip(own.split(step), colors.split(step), values.split(step), strict=True):
        # Below e⁻⁶⁰ weights are negligible, and denormal numbers would be slow.
        weights = torch.baddbmm(places, a, b.transpose(1, 2)).clamp_(min=-60).exp_()
        sums.append(weights @ v)
    tiles = torch.cat(sums).reshape(batch, -1, _TILE, _TILE, channels)
    return tiles.permute(0, 4, 2, 1, 3).reshape(batch, channels, _TILE, -1)


def _with(x: Tensor, *more: Tensor | int) -> Tensor:
    """Append columns (N, P), or constant ones, to (N, P, D)."""
    columns = [c if isinstance(c, Tensor) else torch.full_like(x[:, :, 0], c) for c in more]
    return torch.cat([x, torch.stack(columns, 2)], 2)


class Parsing(nn.Module):
    """b12 to b15: one step of mean field with triple penalties and a mixture of label contexts.

    Liu et al. 2015, eq. 4 and 8. With q the softmax of the scores, ``o12(j, v) = q(j, v) Σ_z d(j, z) q(z, v)`` (b12),
    ``o13(i, u, k) = Σ_j Σ_v μ_k(u, v, j - i) o12(j, v)`` (b13), ``o14(i, u) = min_k o13(i, u, k)`` (b14), and
    ``softmax(ln q - o14)`` over the labels (b15). ``contexts`` contains μ, filters of 9 x 9 (mixtures of label 0 first,
    then of label 1, ...), zero beyond the image; initially ``potts``.

    In the paper d is a weighted sum of squared distances, which gives the largest weight to the least similar pixels;
    here it is the Gaussian of that sum, normalized over the window. The paper's table gives b11 a sigmoid; here the
    softmax makes q a distribution over labels, which mean field starts from, and which the scores of any network have.
    """

    def __init__(self, classes: int, mixtures: int = MIXTURES) -> None:
        super().__init__()
        self.classes, self.mixtures = classes, mixtures
        self.local = LocalFilter()
        self.contexts = nn.Conv2d(classes, classes * mixtures, _CONTEXT, padding=_CONTEXT // 2, bias=False)
        self.contexts.weight = nn.Parameter(potts(classes, mixtures))

    def forward(self, images: Tensor, logits: Tensor) -> Tensor:
        """Refine logits (B, C, H, W) of images uint8 (B, H, W, 3) to logits whose softmax is b15."""
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        with torch.autocast(logits.device.type, enabled=False):
            unary = logits.to(dtype).log_softmax(1)
            return unary - self.penalties(images, unary.exp())

    def penalties(self, images: Tensor, q: Tensor) -> Tensor:
        """Return o14 (B, C, H, W) of the marginals q (B, C, H, W)."""
        contexts: Tensor = self.contexts(q * self.local(images, q))
        return contexts.unflatten(1, (-1, self.mixtures)).amin(2)


def potts(classes: int, mixtures: int = MIXTURES, weight: float = 5.0) -> Tensor:
    """Return contexts in which all other labels have the same penalty.

    The first context is a Gaussian around the pixel; the others are halves of it, in all directions. The minimum over
    them (b14) is then the penalty of the side on which a label belongs, which keeps boundaries.

    Args:
        weight: Penalty of a pixel surrounded by another label.

    Returns:
        float32 (classes * mixtures, classes, 9, 9).
    """
    at = torch.arange(_CONTEXT) - _CONTEXT // 2
    rows, columns = at[:, None].double(), at[None, :].double()
    gaussian = torch.exp(-(rows**2 + columns**2) / (2 * (_CONTEXT / 4) ** 2))
    masks = [gaussian]
    for turn in range(mixtures - 1):
        angle = 2 * math.pi * turn / (mixtures - 1)
        masks.append(gaussian * (rows * math.sin(angle) + columns * math.cos(angle) > -1e-9))
    sides = torch.stack([mask / mask.sum() for mask in masks]).float()
    others = 1 - torch.eye(classes)
    return (weight * others[:, None, :, None, None] * sides[None, :, None]).flatten(0, 1)


class Upsample(nn.Module):
    """Bilinear upsampling (N, C, h, w) -> (N, C, 8 h, 8 w), constant beyond the outermost cells."""

    kernel_size, stride, transposed = 2 * STRIDE, STRIDE, True

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=STRIDE, mode="bilinear")


class DPN(VGG16):
    """DPN: (N, 3, H, W) BGR minus the mean -> (N, classes, H, W) logits, whose softmax is b15.

    Liu et al. 2015, sec. 4, table 1. VGG16 without pool4 and pool5, so that cells are 8 pixels apart. Dilation 2 in
    conv5 and 4 in fc6 (the paper's filters of 5 x 5 and 25 x 25) preserves the receptive field. ``unary`` returns the
    scores before b12, which are trained first.
    """

    def __init__(self, classes: int, *, mixtures: int = MIXTURES, narrow: int = 1) -> None:
        # Pools of one pixel are none.
        super().__init__(pools=[*(pool() for _ in range(3)), pool(1, 1), pool(1, 1)], conv5_dilation=2, narrow=narrow)
        hidden = 4096 // narrow
        self.fc6 = nn.Conv2d(512 // narrow, hidden, 7, padding=12, dilation=4)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.fc8 = nn.Conv2d(hidden, classes, 1)
        self.upscore = Upsample()
        initialize(self)
        self.parsing = Parsing(classes, mixtures)

    def unary(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, H, W) of b11."""
        y = F.dropout(F.relu(self.fc6(self.features(x)[-1])), 0.5, self.training)
        y = F.dropout(F.relu(self.fc7(y)), 0.5, self.training)
        return crop(self.upscore(self.fc8(y)), 0, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.parsing(pixels(x), self.unary(x))

    def path(self) -> list[nn.Module]:
        """Return the layers from the image to the scores, for the receptive field."""
        layers = [self.fc6, self.fc7, self.fc8, self.upscore, self.parsing.local, self.parsing.contexts]
        return [*self.trunk(), *layers]


def read_contexts(data: bytes, source: str) -> Tensor:
    """Return b13's filters, float32 (mixtures * C, C, 9, 9), of a file of weights.

    Args:
        data: The file's content, which may hold the network beside them.
        source: The file's URI, for messages.

    Raises:
        ModelError: They are missing, or of another shape.
    """
    name = "contexts.weight"
    tensors = {key.removeprefix("parsing."): value for key, value in state_dict.parse(data, source).items()}
    state = {key: value for key, value in tensors.items() if key == name}
    contexts = state.get(name)
    outputs, classes = contexts.shape[:2] if contexts is not None and contexts.ndim >= 2 else (0, 0)
    fits = 0 < classes < 2**15 and outputs < 2**20
    with torch.device("meta"):  # a file may claim any number of classes
        wanted = Parsing(classes, max(1, outputs // classes)) if fits else Parsing(1)
    state_dict.check(state, wanted, source, "the layers of DPN")
    state_dict.check_finite(state, source)
    return state[name].float()


@torch.inference_mode()
def parse(image: np.ndarray, logits: np.ndarray, contexts: Tensor | None = None) -> np.ndarray:
    """Apply b12 to b15 to the scores of any network.

    Args:
        image: uint8 (H, W, 3).
        logits: float32 (C, H, W).
        contexts: As in ``Parsing``, for these C labels; ``potts`` by default.

    Returns:
        Marginals float32 (C, H, W).
    """
    classes = len(logits)
    layers = Parsing(classes, MIXTURES if contexts is None else len(contexts) // classes)
    if contexts is not None:
        layers.contexts.weight = nn.Parameter(contexts)
    refined: Tensor = layers(torch.from_numpy(image)[None], torch.from_numpy(logits)[None])
    return refined[0].softmax(0).numpy()


def of_labels(contexts: Tensor, class_ids: np.ndarray) -> Tensor:
    """Return the contexts among the labels ``class_ids``, in that order."""
    ids, classes = torch.from_numpy(class_ids.astype(np.int64)), contexts.shape[1]
    return contexts.unflatten(0, (classes, -1))[ids][:, :, ids].flatten(0, 1)


# b13 by the paper's name; no file of the authors was available.
_LAYERS = {name: name for name in (*conv_layers(), "fc6", "fc7")} | {"fc8*": "fc8", "b13": "parsing.contexts"}
convert = from_caffe(_LAYERS)
