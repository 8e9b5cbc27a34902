"""The parameters of a dense CRF, under the names of the papers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from segbatch.crf.engine import ENGINES

if TYPE_CHECKING:
    from segbatch.crf.kernels import Kernel

NORMALIZATIONS = ("none", "before", "after", "symmetric")
MAX_ITERATIONS = 1000


def default_prune(labels: int) -> float:
    """Return the default ``prune`` for a number of labels: 0.02, above 50 labels 0.01.

    Up to 50 labels the most likely label of every pixel reaches 0.02. ``benchmarks/prune.py`` measures the loss.
    """
    return 0.02 if labels <= 50 else 0.01


def _setting(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """Define a field that is also a key of a job's ``crf`` mapping and a ``--crf-...`` flag."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class CRFParams:
    """The parameters of a dense CRF with a bilateral and a Gaussian kernel and Potts compatibility.

    Source: Krähenbühl & Koltun 2011, eq. 3.

    Args:
        w_bilateral: Weight of the bilateral kernel, 0 or more; 0 leaves the kernel out.
        theta_alpha: Standard deviation of the bilateral kernel in pixels.
        theta_beta: Standard deviation of the bilateral kernel in RGB levels.
        w_spatial: Weight of the Gaussian kernel, 0 or more; 0 leaves the kernel out.
        theta_gamma: Standard deviation of the Gaussian kernel in pixels.
        iterations: Mean-field iterations, 0 to 1000.
        normalization: ``none``, ``before``, ``after`` or ``symmetric``: where to divide by the filtered ones.
        prune: Probability in [0, 1). A label whose probability is lower at every pixel, and which is the most likely
            one at none, is left out of the inference; 0 keeps all, None is ``default_prune``.

    Raises:
        ValueError: Names the parameter, its value and the remedy.
    """

    w_bilateral: float = _setting(4.0, "weight of the bilateral (position and color) kernel")
    theta_alpha: float = _setting(67.0, "bilateral kernel: standard deviation in pixels")
    theta_beta: float = _setting(3.0, "bilateral kernel: standard deviation in RGB levels")
    w_spatial: float = _setting(3.0, "weight of the spatial (smoothness) kernel")
    theta_gamma: float = _setting(3.0, "spatial kernel: standard deviation in pixels")
    iterations: int = _setting(10, "mean-field iterations")
    normalization: str = _setting(
        "symmetric", "normalization of the kernels: none, before, after, symmetric", NORMALIZATIONS
    )
    prune: float | None = None

    def __post_init__(self) -> None:
        for name in ("w_bilateral", "w_spatial"):
            self._check_number(name, _number(getattr(self, name)) >= 0, "number, 0 to leave the kernel out")
        for name in ("theta_alpha", "theta_beta", "theta_gamma"):
            self._check_number(name, _number(getattr(self, name)) > 0, "standard deviation above 0")
        count = self.iterations
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_ITERATIONS:
            raise ValueError(f"iterations is {count!r}; give a whole number from 0 to {MAX_ITERATIONS} (10 is usual)")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization is {self.normalization!r}; give one of {', '.join(NORMALIZATIONS)}")
        if self.prune is not None and not (isinstance(self.prune, (int, float)) and 0 <= self.prune < 1):
            raise ValueError(f"prune is {self.prune!r}; give a probability from 0 (keep every label) to below 1")

    def _check_number(self, name: str, is_in_range: bool, what: str) -> None:
        value = getattr(self, name)
        if not is_in_range or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}; give a finite {what}")
        object.__setattr__(self, name, float(value))

    def kernels(self) -> tuple[Kernel, ...]:
        """Return the kernels with a weight other than 0, the bilateral one first."""
        from segbatch.crf.kernels import Bilateral, Gaussian  # imports NumPy

        kernels: list[Kernel] = []
        if self.w_bilateral:
            kernels.append(Bilateral(self.theta_alpha, self.theta_beta, self.w_bilateral, self.normalization))
        if self.w_spatial:
            kernels.append(Gaussian(self.theta_gamma, self.w_spatial, self.normalization))
        return tuple(kernels)


@dataclass(frozen=True)
class CRFSettings(CRFParams):
    """``CRFParams`` and the engine: the ``crf`` mapping of a job.

    Args:
        engine: ``native``, ``torch`` or ``pydensecrf``.
    """

    engine: str = _setting("native", "engine of the dense CRF", tuple(ENGINES))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; give one of {', '.join(ENGINES)}")

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the ``crf`` mapping, which has no ``prune``: a job prunes once, before it refines."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "prune"}


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) else math.nan
