"""Dense CRF after the network (Krähenbühl & Koltun 2011), as DeepLab uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from segbatch.crf import DenseCRF, Kernel
from segbatch.crf.engine import build_engine
from segbatch.crf.kernels import with_labels
from segbatch.crf.params import CRFSettings
from segbatch.errors import SpecError
from segbatch.protocols import Json
from segbatch.records import Scores
from segbatch.refiners.entry import RefinerWeights


class DenseCRFRefiner:
    """Mean-field inference of the dense CRF over the classes of the scores.

    Args:
        params: Its ``prune`` is ignored. Scores are pruned already, by a rule that also keeps classes that can be the
            arg-max between cells (``stages.scoring.coarse_scores``).
        kernels: Replace those of ``params``. Their label compatibilities are of all classes of the network.
        parameters: Everything that decides the masks; by default ``params``.
    """

    needs_image = True

    def __init__(
        self,
        params: CRFSettings,
        kernels: Sequence[Kernel] | None = None,
        parameters: Mapping[str, Json] | None = None,
    ) -> None:
        try:
            self.params, self.engine = replace(params, prune=0.0), build_engine(params.engine)
        except ImportError as e:  # pydensecrf is an extra
            raise SpecError(f"crf.engine: {e}") from None
        self.kernels = params.kernels() if kernels is None else tuple(kernels)
        self.parameters: Mapping[str, Json] = params.to_dict() if parameters is None else parameters

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the label compatibilities; None if they fit any number."""
        return next((len(k.compat) for k in self.kernels if isinstance(k.compat, np.ndarray)), None)

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """Return the class ids int16 (H, W) of the highest marginals, and these, float32 (H, W)."""
        size = (scores.height, scores.width)
        kernels = [with_labels(kernel, scores.class_ids) for kernel in self.kernels]
        crf = DenseCRF(self.params, self.engine, kernels=kernels)
        winner, marginal = crf.refine_coarse(image, scores.values.astype(np.float32), size, scores.stride)
        return scores.class_ids.astype(np.int16)[winner], marginal


def build(params: CRFSettings, weights: RefinerWeights | None) -> DenseCRFRefiner:
    """Build the refiner. It takes no weights."""
    return DenseCRFRefiner(params)
