"""Conversion of samples of any depth to 8 bits, and of transparency to white."""

from __future__ import annotations

import numpy as np


def integers_to_uint8(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Return the high byte of samples of ``bits`` bits; of signed ones that of the positive half."""
    if bits == 32 and not signed and values.dtype.kind == "i":  # Pillow has no unsigned mode
        values = values.view(np.uint32)
    return np.minimum(np.maximum(values, 0) >> max(bits - 8 - signed, 0), 255).astype(np.uint8)


def floats_to_uint8(values: np.ndarray) -> np.ndarray:
    """Scale from [0, 1] if no value is larger, [0, 255] if none is larger, else the range of values; NaN is black."""
    finite = np.isfinite(values)
    values = np.where(finite, values, 0).astype(np.float64)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if high <= 1:
        values = values * 255
    elif high > 255:
        values = (values - low) * (255 / max(high - low, np.finfo(np.float32).tiny))
    return np.where(finite, np.clip(np.rint(values), 0, 255), 0).astype(np.uint8)


def over_white(rgb: np.ndarray, alpha: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Blend uint8 (H, W, 3) ``rgb`` over white by ``alpha`` (H, W), which is ignored if it is 0 everywhere."""
    if not alpha.any() or alpha.min() == 255:
        return rgb
    share = alpha[:, :, None].astype(np.uint32)
    above = rgb * np.uint32(255) if premultiplied else rgb * share
    return np.minimum((above + (255 - share) * 255 + 127) // 255, 255).astype(np.uint8)
