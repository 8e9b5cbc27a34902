"""Dense CRF after the network (Krähenbühl & Koltun 2011), as DeepLab uses it."""

from __future__ import annotations

import numpy as np

from segbatch.chunk import Scores
from segbatch.crf import CRFParams, DenseCRF
from segbatch.refiners.none import pick
from segbatch.refiners.upsample import upsample


class DenseCRFRefiner:
    """Mean-field marginals of the dense CRF over the classes that the image can show."""

    needs_image = True

    def __init__(self, params: CRFParams, engine: str) -> None:
        self.crf = DenseCRF(params, engine=engine)

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        if len(scores.class_ids) == 1:  # nothing to decide
            shape = scores.height, scores.width
            return np.full(shape, scores.class_ids[0], np.int16), np.ones(shape, np.float32)
        return pick(self.crf.refine(image, logits=upsample(scores)), scores.class_ids)
