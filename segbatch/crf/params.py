"""The parameters of a dense CRF, under the names of the papers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segbatch.crf.kernels import NORMALIZATIONS, Bilateral, Gaussian, Kernel


def default_prune(labels: int) -> float:
    """The ``prune`` of an inference over ``labels`` labels for which none is given: 0.02, above 50 labels 0.01.

    Up to 50 labels the likeliest label of every pixel reaches 0.02. ``benchmarks/prune.py`` measures what is lost.
    """
    return 0.02 if labels <= 50 else 0.01


@dataclass(frozen=True)
class CRFParams:
    """A bilateral and a Gaussian kernel with Potts compatibility, and how to infer with them.

    ``w_bilateral`` and ``w_spatial`` weigh the kernels; ``theta_alpha`` (pixels) and ``theta_beta`` (gray
    levels) are the standard deviations of the bilateral one, ``theta_gamma`` (pixels) of the Gaussian one
    (Krähenbühl & Koltun 2011, eq. 3). A weight of 0 leaves its kernel out. ``normalization`` is one of
    ``none before after symmetric``. Labels whose probability is below ``prune`` at every pixel, and that are the
    likeliest at none, are left out of the inference; 0 keeps all, None is ``default_prune`` of the number of labels.
    Raises ``ValueError`` that names the parameter and the remedy.
    """

    w_bilateral: float = 4.0
    theta_alpha: float = 67.0
    theta_beta: float = 3.0
    w_spatial: float = 3.0
    theta_gamma: float = 3.0
    iterations: int = 10
    normalization: str = "symmetric"
    prune: float | None = None

    def __post_init__(self) -> None:
        for name in ("w_bilateral", "w_spatial"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise ValueError(f"{name} is {value!r}; give a finite number, 0 to leave the kernel out")
        for name in ("theta_alpha", "theta_beta", "theta_gamma"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; give a finite standard deviation above 0")
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise ValueError(f"iterations is {self.iterations!r}; give a whole number, 0 or more (10 is usual)")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization is {self.normalization!r}; give one of {', '.join(NORMALIZATIONS)}")
        if self.prune is not None and not (isinstance(self.prune, (int, float)) and 0 <= self.prune < 1):
            raise ValueError(f"prune is {self.prune!r}; give a probability from 0 (keep every label) to below 1")

    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels these parameters stand for, the bilateral one first."""
        kernels: list[Kernel] = []
        if self.w_bilateral:
            kernels.append(Bilateral(self.theta_alpha, self.theta_beta, self.w_bilateral, self.normalization))
        if self.w_spatial:
            kernels.append(Gaussian(self.theta_gamma, self.w_spatial, self.normalization))
        return tuple(kernels)
