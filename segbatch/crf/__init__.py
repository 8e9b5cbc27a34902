"""Dense CRF refinement of segmentation scores: a standalone library, and the default refiner of a job.

The public names are imported when they are first used: the command line needs the parameters alone, without NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbatch.crf.dense_crf import DenseCRF
    from segbatch.crf.engine import Engine
    from segbatch.crf.evidence import labels_to_probs
    from segbatch.crf.kernels import Bilateral, Features, Gaussian, Kernel
    from segbatch.crf.params import CRFParams

__all__ = [
    "Bilateral",
    "CRFParams",
    "DenseCRF",
    "Engine",
    "Features",
    "Gaussian",
    "Kernel",
    "labels_to_probs",
]

_HOMES = {
    "Bilateral": "kernels",
    "CRFParams": "params",
    "DenseCRF": "dense_crf",
    "Engine": "engine",
    "Features": "kernels",
    "Gaussian": "kernels",
    "Kernel": "kernels",
    "labels_to_probs": "evidence",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
