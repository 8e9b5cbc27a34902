"""Dense CRF refinement of segmentation scores: a standalone library, and the default refiner of a job."""

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
