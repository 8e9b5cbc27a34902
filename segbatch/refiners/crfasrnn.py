"""The mean field of CRF-as-RNN after any network (Zheng et al. 2015), with weights that were learned or Potts.

No torch here: with C·Ws and C·Wb as label compatibilities, the layer is a dense CRF that any engine infers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.crf import Bilateral, CRFParams, Gaussian
from segbatch.errors import SpecError
from segbatch.refiners.densecrf import DenseCRFRefiner

# Section 7 of the paper, as in the authors' code; they divide by the filtered ones after filtering.
PAPER = {
    "w_bilateral": 5.0,
    "theta_alpha": 160.0,
    "theta_beta": 3.0,
    "w_spatial": 3.0,
    "theta_gamma": 3.0,
    "iterations": 10,
    "normalization": "after",
}


def build(spec: JobSpec) -> DenseCRFRefiner:
    """The refiner for a spec: parameters of ``spec.crf`` that were given, else the paper's.

    ``spec.refiner_weights`` is the URI of a file with the layer's three matrices: the authors' ``.caffemodel``, its
    PyTorch port, or a network that was trained here. Raises ``SpecError`` if it and weights of ``crf`` are given, and
    ``ModelError`` that lists what is missing or of another shape in the file.
    """
    given = spec.crf.model_dump(include=spec.crf.model_fields_set)
    parameters: dict[str, Any] = {**PAPER, **given}
    engine = parameters.pop("engine", spec.crf.engine)
    params = CRFParams(**parameters)
    if spec.refiner_weights is None:
        return DenseCRFRefiner(params, engine, parameters={**parameters, "engine": engine})
    twice = sorted({"w_bilateral", "w_spatial"} & set(given))
    if twice:
        raise SpecError(
            f"crf.{twice[0]} and refiner_weights are both given, and both say how strongly neighbors agree; "
            "leave one out"
        )
    couplings, digest = _read(spec.refiner_weights, spec.storage_options)
    kernels = (
        Bilateral(params.theta_alpha, params.theta_beta, couplings["bilateral"], params.normalization),
        Gaussian(params.theta_gamma, couplings["spatial"], params.normalization),
    )
    described = {key: value for key, value in parameters.items() if not key.startswith("w_")}
    return DenseCRFRefiner(params, engine, kernels, {**described, "engine": engine, "weights": digest})


def _read(uri: str, storage_options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    from segbatch.models.zoo.crfasrnn import read_couplings

    return read_couplings(uri, storage_options)
