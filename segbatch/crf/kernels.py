"""The pairwise terms of a dense CRF: a Gaussian in some feature space, times a compatibility of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from segbatch.crf.params import NORMALIZATIONS

Compat = float | np.ndarray


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian kernel over positions: nearby pixels get equal labels. Its features are ``(x, y) / theta``.

    Args:
        theta: Standard deviation in pixels, one number or (x, y).
        compat: Factor of the filtered marginals, with the signs of pydensecrf: a number w is a Potts model of weight w,
            which favors equal labels; an array (C,) or (C, C) is added to the energy, so that ``-w * eye(C)`` is Potts
            of weight w.
        normalization: Where to divide by the filtered ones: ``none``, ``before`` or ``after`` the filter, or
            ``symmetric`` (by the square root on both sides).
    """

    theta: float | tuple[float, float]
    compat: Compat = 3.0
    normalization: str = "symmetric"
    thetas: tuple[float, ...] = field(init=False, repr=False)
    needs_image: ClassVar[bool] = False
    vectors: ClassVar[np.ndarray | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "thetas", _deviations("theta", self.theta, 2))
        _finish(self)

    def features(self, image: np.ndarray | None, height: int, width: int) -> np.ndarray:
        """Return feature vectors float32 (2, height * width), row by row."""
        return _positions(self.thetas, height, width)


@dataclass(frozen=True, eq=False)
class Bilateral:
    """A kernel over positions and colors: nearby pixels of similar color get equal labels.

    Its features are ``(x, y) / theta_xy`` and ``(r, g, b) / theta_rgb``.

    Args:
        theta_xy: Standard deviation in pixels, one number or (x, y).
        theta_rgb: Standard deviation in RGB levels, one number or (r, g, b).
        compat: See ``Gaussian``.
        normalization: See ``Gaussian``.
    """

    theta_xy: float | tuple[float, float]
    theta_rgb: float | tuple[float, float, float]
    compat: Compat = 4.0
    normalization: str = "symmetric"
    thetas: tuple[float, ...] = field(init=False, repr=False)
    needs_image: ClassVar[bool] = True
    vectors: ClassVar[np.ndarray | None] = None

    def __post_init__(self) -> None:
        xy = _deviations("theta_xy", self.theta_xy, 2)
        object.__setattr__(self, "thetas", xy + _deviations("theta_rgb", self.theta_rgb, 3))
        _finish(self)

    def features(self, image: np.ndarray | None, height: int, width: int) -> np.ndarray:
        """Return feature vectors float32 (5, height * width), row by row."""
        if image is None:
            raise ValueError("image is None but a Bilateral kernel needs one; give uint8 (H, W, 3)")
        colors = np.moveaxis(image.reshape(-1, 3), 1, 0).astype(np.float32)
        colors /= np.asarray(self.thetas[2:], np.float32)[:, None]
        return np.concatenate([_positions(self.thetas[:2], height, width), colors])


@dataclass(frozen=True, eq=False)
class Features:
    """A kernel over any features: pixels with similar features get equal labels.

    Args:
        values: float32 (D, H, W) or (D, H * W), divided by the standard deviations.
        compat: See ``Gaussian``.
        normalization: See ``Gaussian``.
    """

    values: np.ndarray
    compat: Compat = 3.0
    normalization: str = "symmetric"
    needs_image: ClassVar[bool] = False
    thetas: ClassVar[tuple[float, ...]] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.dtype != np.float32 or values.ndim not in (2, 3) or 0 in values.shape:
            raise ValueError(
                f"features are {values.dtype} {values.shape}; give float32 (D, H, W) or (D, H * W), D >= 1"
            )
        if not np.isfinite(values).all():
            raise ValueError("features hold NaN or infinity; replace them by finite numbers")
        object.__setattr__(self, "values", np.ascontiguousarray(values.reshape(len(values), -1)))
        _finish(self)

    @property
    def vectors(self) -> np.ndarray:
        """The vectors that were given, float32 (D, pixels)."""
        return self.values

    def features(self, image: np.ndarray | None, height: int, width: int) -> np.ndarray:
        """Return the vectors that were given, float32 (D, height * width)."""
        if self.values.shape[1] != height * width:
            raise ValueError(
                f"features hold {self.values.shape[1]} pixels but the image has {height} x {width} = "
                f"{height * width}; give one vector per pixel, row by row"
            )
        return self.values


# Of each, ``thetas`` are the standard deviations of its features (none of ``Features``, which are divided already),
# and ``vectors`` the features that follow from no image and no size.
Kernel = Gaussian | Bilateral | Features


def check_kernels(kernels: Sequence[Kernel], labels: int, size: tuple[int, int]) -> None:
    """Raise ``ValueError`` if a kernel does not fit ``labels`` labels or an image of ``size`` (H, W)."""
    for kernel in kernels:
        if kernel.vectors is not None:
            kernel.features(None, *size)
        shape = np.shape(kernel.compat)
        if shape not in ((), (labels,), (labels, labels)):
            raise ValueError(
                f"compat of the {type(kernel).__name__} kernel has shape {shape} for {labels} labels; "
                f"give a number, ({labels},) or ({labels}, {labels})"
            )


def with_compat(kernel: Kernel, compat: np.ndarray) -> Kernel:
    """Replace Potts by the label compatibility ``compat`` (C, C) times the weight of the kernel."""
    if np.ndim(kernel.compat) or np.ndim(compat) != 2:
        raise ValueError(f"compat has shape {np.shape(compat)}; give a matrix (C, C) for kernels with one weight")
    return replace(kernel, compat=np.float32(kernel.compat) * np.asarray(compat, np.float32))


def with_labels(kernel: Kernel, keep: np.ndarray) -> Kernel:
    """Restrict the label compatibility of a kernel to the labels ``keep``."""
    compat = kernel.compat
    if not isinstance(compat, np.ndarray):
        return kernel
    return replace(kernel, compat=compat[keep] if compat.ndim == 1 else compat[np.ix_(keep, keep)])


def _positions(thetas: Sequence[float], height: int, width: int) -> np.ndarray:
    x = np.arange(width, dtype=np.float32) / np.float32(thetas[0])
    y = np.arange(height, dtype=np.float32) / np.float32(thetas[1])
    return np.stack([np.tile(x, height), np.repeat(y, width)])


def _deviations(name: str, value: object, count: int) -> tuple[float, ...]:
    values = tuple(np.atleast_1d(np.asarray(value, np.float64)).tolist())
    values = values * count if len(values) == 1 else values
    if len(values) != count or not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"{name} is {value!r}; give one finite standard deviation above 0, or {count} of them")
    return values


def _finish(kernel: Kernel) -> None:
    if kernel.normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization is {kernel.normalization!r}; give one of {', '.join(NORMALIZATIONS)}")
    compat = np.asarray(kernel.compat)
    if compat.dtype.kind not in "fiu" or compat.ndim > 2 or not np.isfinite(compat).all():
        raise ValueError(f"compat is {kernel.compat!r}; give a finite number (Potts), an array (C,) or a matrix (C, C)")
    if compat.ndim == 2 and compat.shape[0] != compat.shape[1]:
        raise ValueError(f"compat has shape {compat.shape}; a matrix of label compatibilities is square")
    if compat.ndim:
        object.__setattr__(kernel, "compat", np.ascontiguousarray(compat, np.float32))
