"""No refinement: the network's own mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segbatch.protocols import Json
from segbatch.records import Scores
from segbatch.refiners.entry import NoParams, RefinerWeights
from segbatch.refiners.upsample import softmax, upsample


class NoRefiner:
    """The arg-max of the upsampled scores, with its softmax probability among the candidate classes."""

    needs_image = False
    num_classes = None
    parameters: Mapping[str, Json] = {}

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """Return the class ids int16 (H, W), and their probabilities float32 (H, W)."""
        return pick(softmax(upsample(scores)), scores.class_ids)


def build(params: NoParams, weights: RefinerWeights | None) -> NoRefiner:
    """Build the refiner. It takes no weights."""
    return NoRefiner()


def pick(marginals: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most likely class of each pixel.

    Args:
        marginals: (K, H, W) of the classes ``class_ids`` (K,).

    Returns:
        The class ids int16 (H, W), and their marginals (H, W).
    """
    return class_ids.astype(np.int16)[marginals.argmax(axis=0)], marginals.max(axis=0)
