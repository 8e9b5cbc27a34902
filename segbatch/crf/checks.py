"""Checks of arguments, before any engine is called."""

from __future__ import annotations

import numpy as np

from segbatch.crf.evidence import Evidence


def check_image(image: object) -> np.ndarray:
    """Return the image as C-contiguous uint8 (H, W, 3). Raises ``TypeError`` or ``ValueError`` with the remedy."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image is {type(image).__name__}; give a NumPy array uint8 (H, W, 3)")
    if image.dtype != np.uint8:
        raise TypeError(f"image has dtype {image.dtype}; give uint8 in 0-255 (for 0-1 floats: image * 255)")
    if image.ndim != 3 or image.shape[2] != 3:
        hint = "; for CHW use image.transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] == 3 else ""
        hint = "; for gray use np.repeat(image[..., None], 3, 2)" if image.ndim == 2 else hint
        raise ValueError(f"image has shape {image.shape}; give (H, W, 3){hint}")
    if 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}; give at least one pixel")
    return np.ascontiguousarray(image)


def check_evidence(
    size: tuple[int, int] | None, probs: object, logits: object, unary: object, ignore: object
) -> Evidence:
    """Return the one of ``probs``, ``logits`` and ``unary`` that is given, checked against the ``size`` (H, W)."""
    given = {k: v for k, v in {"probs": probs, "logits": logits, "unary": unary}.items() if v is not None}
    if len(given) != 1:
        names = " and ".join(given) or "none"
        raise TypeError(f"got {names} of probs, logits, unary; give exactly one")
    kind, values = next(iter(given.items()))
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{kind} is {type(values).__name__}; give a NumPy array float32 (C, H, W)")
    if values.dtype not in (np.float32, np.float16):
        raise TypeError(f"{kind} has dtype {values.dtype}; give float32 (use .astype(np.float32))")
    if values.ndim != 3:
        raise ValueError(f"{kind} has shape {values.shape}; give (C, H, W)")
    if values.shape[0] == 0:
        raise ValueError(f"{kind} has shape {values.shape}, without a label; give at least one")
    if size is not None and values.shape[1:] != size:
        hint = "; for HWC use .transpose(2, 0, 1)" if values.shape[:2] == size else ""
        raise ValueError(
            f"{kind} has shape {values.shape} but the image is {size[0]} x {size[1]}; "
            f"give (C, {size[0]}, {size[1]}){hint}"
        )
    if 0 in values.shape:
        raise ValueError(f"{kind} has shape {values.shape}; give at least one pixel")
    evidence = Evidence(np.ascontiguousarray(values, np.float32), kind, _check_ignore(ignore, values.shape[1:]))
    _check_values(evidence)
    return evidence


def check_coarse(logits: object, size: tuple[int, int], stride: int) -> Evidence:
    """Return logits (C, h, w), checked against the ``size`` (H, W) of the image and the ``stride``."""
    if isinstance(stride, bool) or not isinstance(stride, (int, np.integer)) or stride < 1:
        raise ValueError(f"stride is {stride!r}; give a whole number of 1 or more")
    if len(size) != 2 or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in size):
        raise ValueError(f"size is {size!r}; give (height, width) of the image")
    cells = (-(-int(size[0]) // int(stride)), -(-int(size[1]) // int(stride)))
    evidence = check_evidence(None, None, logits, None, None)
    if evidence.size != cells:
        raise ValueError(
            f"logits have shape {evidence.values.shape}, but an image of {size[0]} x {size[1]} at stride {stride} "
            f"has {cells[0]} x {cells[1]} cells; give (C, {cells[0]}, {cells[1]})"
        )
    return evidence


def _check_ignore(ignore: object, size: tuple[int, ...]) -> np.ndarray | None:
    if ignore is None:
        return None
    if not isinstance(ignore, np.ndarray) or ignore.dtype != np.bool_ or ignore.shape != size:
        what = f"{ignore.dtype} {ignore.shape}" if isinstance(ignore, np.ndarray) else type(ignore).__name__
        raise TypeError(f"ignore is {what}; give bool {size}, True where a pixel has no evidence")
    return np.ascontiguousarray(ignore)


def _check_values(evidence: Evidence) -> None:
    values, kind = evidence.values, evidence.kind
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        if kind == "probs" and (low < 0 or high > 1.001):
            raise ValueError(f"probs range from {low:.4g} to {high:.4g}; give 0 to 1, or pass them as logits=")
        return
    bad = ~np.isfinite(values)
    if evidence.ignore is not None:
        bad &= ~evidence.ignore
        if not bad.any():
            raise ValueError(f"{kind} holds NaN or infinity at ignored pixels; set them to 0 there")
    c, y, x = (int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
        f"{kind} holds {values[c, y, x]} at label {c}, row {y}, column {x} ({int(bad.sum())} such values); "
        "replace them with finite numbers, or clip"
    )
