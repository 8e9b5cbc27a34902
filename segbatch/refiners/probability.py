"""The network's probability of the label that each pixel has in the end, whichever refiner chose it."""

from __future__ import annotations

import numpy as np

from segbatch.crf import _core
from segbatch.records import Scores

# Scores are float16: what they leave over of 1 is known no better than this.
_SMALLEST = 1e-6


def label_probability(scores: Scores, mask: np.ndarray, num_classes: int, temperature: float = 1.0) -> np.ndarray:
    """Softmax of the network's logits over ``temperature``, of the label in the mask: float32 (H, W).

    Logits are upsampled as ``refiners.upsample`` does, in C++. The probability of the classes that ``scores`` leave
    out is not redistributed: at each cell the kept ones lack it to 1, and it counts in the denominator, shared equally
    among them. At cells this is the softmax over all classes (exactly, for temperature 1); between cells it is at most
    that, since a geometric mean of sums exceeds the sum of geometric means (Hölder's inequality).

    Args:
        scores: As ``stages.scoring.coarse_scores`` gives them, of a network of ``num_classes`` classes.
        mask: Class ids (H, W), each of a class that ``scores`` keep.
        temperature: Above 0; see ``models.Weights``.

    Raises:
        ValueError: A pixel has a class that ``scores`` leave out.
    """
    kept, left_out = len(scores.class_ids), num_classes - len(scores.class_ids)
    values = np.empty((kept + (left_out > 0), *scores.values.shape[1:]), np.float32)
    values[:kept] = scores.values
    if left_out:
        others = np.log(np.maximum(1 - np.exp(values[:kept]).sum(axis=0), _SMALLEST))
        # n classes of probability r / n each: n (r / n)^(1 / T), as one logit over T.
        values[kept] = others + np.float32((temperature - 1) * np.log(left_out))
    if temperature != 1:
        values *= np.float32(1 / temperature)
    position = np.full(num_classes, -1, np.int32)
    position[scores.class_ids] = np.arange(kept, dtype=np.int32)
    return _core.label_probability(values, np.take(position, mask), scores.stride)
