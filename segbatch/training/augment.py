"""Augmentation: random scale, crop, mirror image and colors, from a given generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from segbatch.evaluation.class_map import IGNORED

_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Augment:
    """The random changes of an example.

    Attributes:
        crop: (height, width) of the result; None for the whole scaled image.
        scale: Range of the uniformly distributed factor of the size.
        flip: Mirror with probability 0.5.
        jitter: Brightness, contrast and saturation are multiplied by a factor within 1 +- this.
        fill: Color of the padding where a scaled image is smaller than the crop.
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    jitter: float = 0.0
    fill: tuple[int, int, int] = (0, 0, 0)

    def __call__(self, image: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a changed example.

        Args:
            image: uint8 (H, W, 3).
            truth: Class ids int32 (H, W).

        Returns:
            The same types; class ids are ``IGNORED`` in the padding.
        """
        factor = rng.uniform(*self.scale)
        image, truth = self._cut(image, truth, factor, rng)
        if self.flip and rng.random() < 0.5:
            image, truth = image[:, ::-1], truth[:, ::-1]
        if self.jitter:
            image = _jittered(image, rng.uniform(1 - self.jitter, 1 + self.jitter, 3).astype(np.float32))
        return padded(image, truth, self.crop, self.fill) if self.crop else (image, truth)

    def _cut(
        self, image: np.ndarray, truth: np.ndarray, factor: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random window of the scaled image; only this window is scaled."""
        height, width = truth.shape
        full = max(1, round(height * factor)), max(1, round(width * factor))
        rows, cols = (min(side, limit) for side, limit in zip(full, self.crop or full, strict=True))
        top, left = (int(rng.integers(0, side - cut + 1)) for side, cut in zip(full, (rows, cols), strict=True))
        if full == (height, width):
            return image[top : top + rows, left : left + cols], truth[top : top + rows, left : left + cols]
        y, x = height / full[0], width / full[1]
        box = (left * x, top * y, (left + cols) * x, (top + rows) * y)
        scaled = Image.fromarray(image).resize((cols, rows), Image.Resampling.BILINEAR, box)
        at_rows = ((np.arange(top, top + rows) + 0.5) * y).astype(np.int64)
        at_cols = ((np.arange(left, left + cols) + 0.5) * x).astype(np.int64)
        return np.asarray(scaled), truth[at_rows[:, None], at_cols]


def padded(
    image: np.ndarray,
    truth: np.ndarray,
    size: tuple[int, int],
    fill: tuple[int, int, int] | Literal["edge"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its class ids, padded at the bottom and right to ``size``.

    Args:
        fill: A color, or ``edge`` to repeat the border. Class ids are ``IGNORED`` in the padding.
    """
    height, width = truth.shape
    if (height, width) == size:
        return image, truth
    around = (0, size[0] - height), (0, size[1] - width)
    if fill == "edge":
        image = np.pad(image, (*around, (0, 0)), mode="edge")
    else:
        canvas = np.full((*size, 3), fill, np.uint8)
        canvas[:height, :width] = image
        image = canvas
    return image, np.pad(truth, around, constant_values=IGNORED)


def _jittered(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Change brightness, contrast about the mean gray and saturation about each pixel's gray by factors."""
    brightness, contrast, saturation = factors
    pixels = image.astype(np.float32) * brightness
    gray = pixels @ _GRAY
    mean = gray.mean()
    colorless = contrast * gray + (1 - contrast) * mean
    pixels = contrast * pixels + (1 - contrast) * mean
    pixels = saturation * pixels + (1 - saturation) * colorless[:, :, None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
