"""Dense CRF after the network (Krähenbühl & Koltun 2011), as DeepLab uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segbatch.crf import CRFParams, DenseCRF, Kernel
from segbatch.crf.engine import build_engine
from segbatch.crf.kernels import with_labels
from segbatch.records import Scores


class DenseCRFRefiner:
    """Mean-field marginals of the dense CRF over the classes of the scores; ``params.prune`` does not count.

    The scores are pruned already, by a rule that also keeps what can win between the cells (``coarse_scores``).
    ``kernels`` replace those of ``params``; label compatibilities in them are of all the network's classes.
    """

    needs_image = True

    def __init__(
        self,
        params: CRFParams,
        engine: str,
        kernels: Sequence[Kernel] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.params, self.engine, self.parameters = replace(params, prune=0.0), build_engine(engine), parameters
        self.kernels = params.kernels() if kernels is None else tuple(kernels)

    @property
    def num_classes(self) -> int | None:
        """Classes that the compatibilities are for; None if they fit any number."""
        return next((len(k.compat) for k in self.kernels if isinstance(k.compat, np.ndarray)), None)

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """The class ids int16 (H, W) of the highest marginals, and these, float32 (H, W)."""
        size = (scores.height, scores.width)
        kernels = [with_labels(kernel, scores.class_ids) for kernel in self.kernels]
        crf = DenseCRF(self.params, self.engine, kernels=kernels)
        winner, marginal = crf.refine_coarse(image, scores.values.astype(np.float32), size, scores.stride)
        return scores.class_ids.astype(np.int16)[winner], marginal
