"""The network's probability of the predicted class of each pixel, after any refiner."""

from __future__ import annotations

import numpy as np

from segbatch.crf import _core
from segbatch.records import Scores

# Scores are float16: the probability that the kept classes lack to 1 is not known any more precisely.
_MIN_REMAINDER = 1e-6


def label_probability(scores: Scores, mask: np.ndarray, num_classes: int, temperature: float = 1.0) -> np.ndarray:
    """Return the softmax of the network's logits divided by ``temperature``, of the class in the mask.

    Logits are upsampled as in ``refiners.upsample``, in C++. The probability of pruned classes is not redistributed to
    the others: it is in the denominator, in equal parts. At the centers of cells the result is the softmax over all
    classes (exactly, for temperature 1). Between them it is at most that, because a geometric mean of sums exceeds the
    sum of geometric means (Hölder's inequality).

    Args:
        scores: Of ``stages.scoring.coarse_scores``.
        mask: Ids (H, W) of classes that ``scores`` has.
        num_classes: Of the network, pruned ones included.
        temperature: Above 0; see ``models.weights.Weights``.

    Returns:
        float32 (H, W), in [0, 1].

    Raises:
        ValueError: A pixel has a class that ``scores`` does not have.
    """
    kept, left_out = len(scores.class_ids), num_classes - len(scores.class_ids)
    values = np.empty((kept + (left_out > 0), *scores.values.shape[1:]), np.float32)
    values[:kept] = scores.values
    if left_out:
        others = np.log(np.maximum(1 - np.exp(values[:kept]).sum(axis=0), _MIN_REMAINDER))
        # n classes of probability r / n each: n (r / n)^(1 / T), as one logit over T.
        values[kept] = others + np.float32((temperature - 1) * np.log(left_out))
    if temperature != 1:
        values *= np.float32(1 / temperature)
    position = np.full(num_classes, -1, np.int32)
    position[scores.class_ids] = np.arange(kept, dtype=np.int32)
    return _core.label_probability(values, np.take(position, mask), scores.stride)
