"""A small network, and images to train it on: rectangles of the classes' colors on the first one's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from segbatch.labels import LabelSet
from segbatch.models.architecture import Architecture
from segbatch.models.tiles import Geometry

LABELS = LabelSet.of(("ground", "red", "blue"), ((60, 120, 60), (200, 40, 40), (40, 40, 200)))


class Tiny(nn.Module):
    """(N, 3, H, W) -> (N, classes, H/4, W/4), with what makes training hard to repeat: batch norm and dropout."""

    def __init__(self, classes: int, norm: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=not norm), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU()
        )
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(F.relu(self.conv(self.backbone(x))), 0.2, self.training))


def _plain(classes: int) -> Tiny:
    return Tiny(classes, norm=False)


TINY = Architecture("tiny", "for tests", Tiny, "head.weight", Geometry(stride=4, multiple=4), labels=LABELS)
PLAIN = Architecture("plain", "for tests", _plain, "head.weight", Geometry(stride=4, multiple=4), labels=LABELS)


def pictures(folder: Path, count: int, seed: int = 0, height: int = 30, width: int = 40) -> Path:
    """``count`` pictures in ``images/`` and their class ids in ``labels/``, 9 where ignored."""
    rng = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        truth = np.zeros((height, width), np.uint8)
        for c in (1, 2):
            top, left = rng.integers(0, (height - 12, width - 12))
            truth[top : top + 12, left : left + 12] = c
        noise = rng.normal(0, 12, (height, width, 3))
        image = np.clip(np.array(LABELS.colors)[truth] + noise, 0, 255).astype(np.uint8)
        truth[0] = 9
        Image.fromarray(image).save(folder / "images" / f"{i:03}.png")
        Image.fromarray(truth).save(folder / "labels" / f"{i:03}.png")
    return folder
