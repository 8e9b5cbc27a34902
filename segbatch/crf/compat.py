"""pydensecrf's interface over the native engine: a script needs other import lines and no other change.

This module replaces both ``pydensecrf.densecrf`` and ``pydensecrf.utils``. Results are NumPy arrays where pydensecrf
returns its own matrices, the GIL is released during inference, and input that crashes pydensecrf raises ``ValueError``.
New code should use ``segbatch.crf.DenseCRF``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from numbers import Number
from typing import Any, SupportsInt

import numpy as np

from segbatch.crf import _core
from segbatch.crf.compat_utils import (
    compute_unary,
    create_pairwise_bilateral,
    create_pairwise_gaussian,
    softmax_to_unary,
    unary_from_labels,
    unary_from_softmax,
)
from segbatch.crf.kernels import Bilateral, Features, Gaussian, Kernel
from segbatch.crf.native_engine import NativeEngine
from segbatch.crf.params import NORMALIZATIONS

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]


class KernelType(IntEnum):
    """The trainable parameters of a kernel. Inference does not depend on them."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """Where to divide by the filtered ones."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType

Compat = float | np.ndarray
Deviation = float | Sequence[float]
Count = SupportsInt  # what Cython converts to a C int, such as floats, which it truncates

_MAX_COUNT = 2**31


class Unary:
    """Unary energies float32 (labels, variables)."""

    def __init__(self, energies: np.ndarray) -> None:
        self.energies = energies


class ConstUnary(Unary):
    """Unary energies float32 (labels, variables), copied."""

    def __init__(self, u: np.ndarray) -> None:
        super().__init__(_matrix("u", u).copy())


class LogisticUnary(Unary):
    """Energies ``L @ f``: weights (labels, features) times features (features, variables)."""

    def __init__(self, L: np.ndarray, f: np.ndarray) -> None:
        weights, features = _matrix("L", L), _matrix("f", f)
        if weights.shape[1] != features.shape[0]:
            raise ValueError(f"L has {weights.shape[1]} features but f has {features.shape[0]}; give equal numbers")
        super().__init__(weights @ features)


class DenseCRF:
    """A dense CRF of ``nvar`` variables with ``nlabels`` labels each; kernels have arbitrary features."""

    def __init__(self, nvar: Count, nlabels: Count) -> None:
        self._set_up((1, _count("nvar", nvar)), _count("nlabels", nlabels))

    def _set_up(self, size: tuple[int, int], nlabels: int) -> None:
        if min(size) < 1 or nlabels < 1:
            raise ValueError(f"size is {size} with {nlabels} labels; give at least one variable and one label")
        self._size = size
        self._nvar = size[0] * size[1]
        self._nlabel = nlabels
        self._unary = np.zeros((nlabels, self._nvar), np.float32)
        self._image: np.ndarray | None = None
        self._kernels: list[Kernel] = []
        self._images: list[np.ndarray | None] = []
        self._kept: _core.Stepper | None = None

    def setUnary(self, u: Unary) -> None:
        """Set the energies of a ``ConstUnary`` or ``LogisticUnary``."""
        self.setUnaryEnergy(u.energies)

    def setUnaryEnergy(self, u: np.ndarray, f: np.ndarray | None = None) -> None:
        """Set the energies: negative log-likelihoods float32 (nlabels, nvar), or ``u @ f`` if ``f`` is given.

        A label with the energy +inf is impossible: its marginal is 0.

        Raises:
            ValueError: An energy is NaN or -inf, or a variable has no possible label. In pydensecrf all marginals are
                NaN then.
        """
        energies = _matrix("u", u) if f is None else LogisticUnary(u, f).energies
        if energies.shape != self._unary.shape:
            raise ValueError(f"Bad shape for unary energy (Need {self._unary.shape}, got {energies.shape})")
        _check_energies(energies)
        self._unary = energies.copy()
        self._kept = None

    def addPairwiseEnergy(
        self,
        features: np.ndarray,
        compat: Compat,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over ``features`` float32 (D, nvar), divided by the standard deviations."""
        values = _matrix("features", features)
        if values.shape[1] != self._nvar:
            raise ValueError(f"Bad shape for pairwise energy (Need (?, {self._nvar}), got {values.shape})")
        self._add(Features(values.copy(), self._compat(compat), _normalization(normalization)))

    def inference(self, niter: Count) -> np.ndarray:
        """Return the marginals float32 (nlabels, nvar) after ``niter`` iterations."""
        steps = _count("niter", niter)
        marginals = NativeEngine().infer(self._image, self._planes(self._unary), self._kernels, steps)
        return marginals.reshape(self._unary.shape)

    def startInference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the marginals (nlabels, nvar) before any iteration, and two unused arrays for compatibility."""
        start = self._stepper().start().reshape(self._unary.shape)
        return start, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: np.ndarray, tmp1: np.ndarray, tmp2: np.ndarray) -> None:
        """Apply one mean-field iteration to ``Q`` (nlabels, nvar), in place."""
        Q[...] = self._stepper().step(self._planes(self._marginals(Q)), False)[0].reshape(self._unary.shape)

    def klDivergence(self, Q: np.ndarray) -> float:
        """Return the KL divergence of ``Q`` (nlabels, nvar) from the model, without the constant log Z.

        Where ``Q`` is 0, an impossible label adds nothing (NaN in pydensecrf); elsewhere it makes the result inf.
        """
        marginals = self._marginals(Q)
        if marginals[np.isposinf(self._unary)].any():
            return math.inf
        return self._stepper().step(self._planes(marginals), True)[1]

    def _add(self, kernel: Kernel) -> None:
        self._kernels.append(kernel)
        self._kept = None

    def _stepper(self) -> _core.Stepper:
        if self._kept is None:
            self._kept = NativeEngine().stepper(self._image, self._planes(self._unary), self._kernels)
        return self._kept

    def _planes(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(self._nlabel, *self._size)

    def _marginals(self, q: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(q, np.float32)
        if values.shape != self._unary.shape:
            raise ValueError(f"Bad shape for Q (Need {self._unary.shape}, got {values.shape})")
        return values

    def _compat(self, compat: Compat) -> Compat:
        """Return ``compat`` as pydensecrf applies it: the symmetric part of a matrix."""
        if isinstance(compat, Number) or (isinstance(compat, np.ndarray) and compat.ndim == 0):
            return float(compat)
        array = np.asarray(compat, np.float32)
        if array.shape not in ((self._nlabel,), (self._nlabel, self._nlabel)):
            raise ValueError(f"compat has shape {array.shape}; give ({self._nlabel},) or ({self._nlabel},) * 2")
        return array if array.ndim == 1 else (array + array.T) / 2


class DenseCRF2D(DenseCRF):
    """A dense CRF over the pixels of an image of width ``w`` and height ``h``, row by row."""

    def __init__(self, w: Count, h: Count, nlabels: Count) -> None:
        self._set_up((_count("h", h), _count("w", w)), _count("nlabels", nlabels))

    def addPairwiseGaussian(
        self,
        sxy: Deviation,
        compat: Compat,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over positions; ``sxy`` in pixels, one number or (x, y)."""
        self._add(Gaussian(_deviations(sxy), self._compat(compat), _normalization(normalization)))

    def addPairwiseBilateral(
        self,
        sxy: Deviation,
        srgb: Deviation,
        rgbim: np.ndarray,
        compat: Compat,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over position and color; ``rgbim`` uint8 (h, w, 3), ``srgb`` one number or (r, g, b)."""
        image = np.asarray(rgbim)
        if image.dtype != np.uint8 or image.shape != (*self._size, 3):
            raise ValueError(
                f"Bad shape for pairwise bilateral (Need uint8 {(*self._size, 3)}, got {image.dtype} {image.shape})"
            )
        options = (self._compat(compat), _normalization(normalization))
        if self._image is None or np.array_equal(self._image, image):
            self._image = np.array(image, order="C")
            self._add(Bilateral(_deviations(sxy), _deviations(srgb), *options))
        else:  # the engine takes one image; a second one is passed as features
            other = Bilateral(_deviations(sxy), _deviations(srgb), *options)
            self._add(Features(other.features(np.ascontiguousarray(image), *self._size), *options))


def _count(name: str, value: Count) -> int:
    try:
        if isinstance(value, (str, bytes)):  # which int() would parse
            raise TypeError
        count = int(value)
    except (TypeError, ValueError, OverflowError):
        count = _MAX_COUNT
    if count >= _MAX_COUNT:
        raise TypeError(f"{name} is {value!r}; give a whole number below 2^31")
    return count


def _check_energies(energies: np.ndarray) -> None:
    """Refuse energies that make all marginals NaN in pydensecrf; accept +inf, the energy of an impossible label."""
    if np.isfinite(energies).all():
        return
    lowest = energies.min(axis=0)  # NaN wins over every number
    if not np.isfinite(lowest).all():
        variable = int(np.argmin(np.isfinite(lowest)))
        problem = {np.inf: "infinite energies only", -np.inf: "-inf"}.get(float(lowest[variable]), "NaN")
        raise ValueError(
            f"unary energy of variable {variable} is {problem}; each variable needs a finite energy, an impossible "
            "label has +inf (probabilities are clipped by unary_from_softmax(probabilities, clip=1e-5))"
        )


def _normalization(normalization: int) -> str:
    return NORMALIZATIONS[NormalizationType(normalization)]


def _deviations(value: Deviation) -> Any:
    """Return one number or several as a tuple. The kernel checks how many there are."""
    return tuple(np.atleast_1d(np.asarray(value, np.float64)).tolist())


def _matrix(name: str, values: object) -> np.ndarray:
    """Return a C-contiguous float32 matrix. Refuses other types, as pydensecrf does."""
    array = np.asarray(values)
    if array.dtype != np.float32 or array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; give a float32 matrix that is not empty")
    return np.ascontiguousarray(array)
