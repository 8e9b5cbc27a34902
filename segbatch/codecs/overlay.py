"""A mask drawn over its image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from segbatch.labels import LabelSet

_OPACITY = 0.55


def overlay(image: np.ndarray, mask: np.ndarray, labels: LabelSet) -> Image.Image:
    """Return the image with its mask over it; boundaries between classes are white."""
    colors = np.asarray(labels.colors, np.float32)[mask]
    blended = image * (1 - _OPACITY) + colors * _OPACITY
    blended[boundaries(mask)] = 255
    return Image.fromarray(blended.round().astype(np.uint8))


def boundaries(mask: np.ndarray) -> np.ndarray:
    """Return where the class differs from that of the pixel to the left or above, bool (H, W)."""
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    return edge
