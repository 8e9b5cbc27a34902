"""The loss: cross entropy over the pixels that are not ignored, and class weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segbatch.evaluation.class_map import IGNORED


def segmentation_loss(
    scores: Tensor,
    truth: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    ohem_fraction: float = 1.0,
) -> Tensor:
    """Return the cross entropy of a batch, 0 with a gradient of 0 if all its pixels are ignored.

    Args:
        scores: Logits (N, C, H, W).
        truth: Class ids (N, H, W), negative where ignored.
        weight: Factor of the pixels of each true class, (C,).
        reduction: ``mean`` divides by the number of pixels that are not ignored, as the Caffe layers of SegNet and FCN
            do, not by the sum of their weights.
        ohem_fraction: Fraction of the pixels that are kept, those of the highest loss (online hard example mining,
            Shrivastava et al. 2016).
    """
    loss = F.cross_entropy(scores.float(), truth, weight, ignore_index=IGNORED, reduction="none").flatten()
    known = truth.flatten() != IGNORED
    count = known.sum()
    if ohem_fraction < 1:
        loss = loss[known].topk(int(ohem_fraction * count)).values if count else loss[:0]
        count = torch.tensor(max(1, len(loss)))
    total = loss.sum()
    return total / count.clamp(min=1) if reduction == "mean" else total


def median_frequency(truths: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Return class weights by median frequency balancing, float32 (classes,).

    Eigen & Fergus 2015, sec. 4.3.2: the median frequency divided by that of each class. The frequency of a class is its
    fraction of the pixels in the images that contain it, without ignored ones. A class that occurs nowhere has weight
    0.
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
