"""Dense CRF after the network (Krähenbühl & Koltun 2011), as DeepLab uses it."""

from __future__ import annotations

import numpy as np

from segbatch.chunk import Scores
from segbatch.crf import CRFParams, DenseCRF


class DenseCRFRefiner:
    """Mean-field marginals of the dense CRF over the classes that the image can show."""

    needs_image = True

    def __init__(self, params: CRFParams, engine: str) -> None:
        self.crf = DenseCRF(params, engine=engine)

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """The class ids int16 (H, W) of the highest marginals, and these, float32 (H, W)."""
        size = (scores.height, scores.width)
        winner, marginal = self.crf.refine_coarse(image, scores.values.astype(np.float32), size, scores.stride)
        return scores.class_ids.astype(np.int16)[winner], marginal
