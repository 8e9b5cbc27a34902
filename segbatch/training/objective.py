"""What is minimized: cross entropy over the pixels that count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segbatch.evaluation.class_map import VOID


def segmentation_loss(
    scores: Tensor,
    truth: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    hardest: float = 1.0,
) -> Tensor:
    """Cross entropy of scores (N, C, H, W) and class ids (N, H, W), negative where a pixel does not count.

    ``weight`` (C,) multiplies the pixels of each true class. The mean is over the pixels that count, as in the Caffe
    layers of SegNet and FCN, not over their weights. ``hardest`` keeps that share of them, those of the highest loss
    (Shrivastava et al. 2016). Zero, with a gradient of zero, where no pixel counts.
    """
    loss = F.cross_entropy(scores.float(), truth, weight, ignore_index=VOID, reduction="none").flatten()
    known = truth.flatten() != VOID
    count = known.sum()
    if hardest < 1:
        loss = loss[known].topk(int(hardest * count)).values if count else loss[:0]
        count = torch.tensor(max(1, len(loss)))
    total = loss.sum()
    return total / count.clamp(min=1) if reduction == "mean" else total


def median_frequency(truths: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Weights float32 (classes,): the median frequency over each class's own (Eigen & Fergus 2015, sec. 4.3.2).

    The frequency of a class is its share of the pixels that count in the images that hold it. A class that occurs
    nowhere has the weight 0.
    """
    pixels, present = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for truth in truths:
        counts = np.bincount(truth[truth >= 0], minlength=classes)
        pixels += counts
        present += np.where(counts > 0, counts.sum(), 0)
    frequency = pixels / np.maximum(present, 1)
    occurs = frequency > 0
    if not occurs.any():
        return np.zeros(classes, np.float32)
    weights = np.zeros(classes)
    weights[occurs] = np.median(frequency[occurs]) / frequency[occurs]
    return weights.astype(np.float32)
