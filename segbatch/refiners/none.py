"""No refinement: the network's own mask."""

from __future__ import annotations

import numpy as np

from segbatch.records import Scores
from segbatch.refiners.upsample import softmax, upsample


class NoRefiner:
    """The class with the highest upsampled score, and its softmax probability among the classes kept."""

    needs_image = False

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        return pick(softmax(upsample(scores)), scores.class_ids)


def pick(marginals: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Marginals (K, H, W) of the classes ``class_ids`` (K,) -> (class ids int16 (H, W), winning marginal (H, W))."""
    return class_ids.astype(np.int16)[marginals.argmax(axis=0)], marginals.max(axis=0)
