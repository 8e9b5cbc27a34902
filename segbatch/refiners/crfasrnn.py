"""The mean field of CRF-as-RNN after any network (Zheng et al. 2015), with trained weights or Potts.

No torch without weights: with C·Ws and C·Wb as label compatibilities, the layer is a dense CRF that any engine infers.
"""

from __future__ import annotations

from dataclasses import dataclass

from segbatch.crf import Bilateral, Gaussian
from segbatch.crf.params import CRFSettings
from segbatch.errors import SpecError
from segbatch.refiners.densecrf import DenseCRFRefiner
from segbatch.refiners.entry import RefinerWeights


@dataclass(frozen=True)
class CRFasRNNParams(CRFSettings):
    """Defaults of section 7 of the paper, as in the authors' code, which divides by the filtered ones afterwards."""

    w_bilateral: float = 5.0
    theta_alpha: float = 160.0
    normalization: str = "after"


def build(params: CRFasRNNParams, weights: RefinerWeights | None) -> DenseCRFRefiner:
    """Build the refiner.

    Args:
        weights: A file with the layer's three matrices: the authors' ``.caffemodel``, its PyTorch port, or a network
            that was trained here. By default a Potts model.

    Raises:
        SpecError: Weights and kernel weights of ``params`` are given.
        ModelError: Lists what is missing or of another shape in the file.
    """
    if weights is None:
        return DenseCRFRefiner(params)
    for name in ("w_bilateral", "w_spatial"):
        if getattr(params, name) != getattr(CRFasRNNParams(), name):
            raise SpecError(
                f"crf.{name} and refiner_weights are both given, and both say how strongly neighbors agree; "
                "leave one out"
            )
    from segbatch.models.zoo.crfasrnn import couplings  # imports torch

    spatial, bilateral = couplings(weights.data, weights.source)
    kernels = (
        Bilateral(params.theta_alpha, params.theta_beta, bilateral, params.normalization),
        Gaussian(params.theta_gamma, spatial, params.normalization),
    )
    described = {key: value for key, value in params.to_dict().items() if not key.startswith("w_")}
    return DenseCRFRefiner(params, kernels, {**described, "weights": weights.digest})
