"""How good weights are, as they would be shipped: the masks of ``segbatch run --refiner none``, against the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segbatch.evaluation.confusion import Confusion
from segbatch.models.base import TorchModel
from segbatch.records import Scores
from segbatch.refiners.none import NoRefiner
from segbatch.training.examples import Examples, load_or_void

_BATCH = 4


def confusion(model: TorchModel, examples: Examples, indices: Sequence[int]) -> Confusion:
    """Counts over the examples ``indices``. Raises ``ModelError`` and ``RecordFailure`` as the model does."""
    total, refiner = Confusion(len(model.labels)), NoRefiner()
    for i in range(0, len(indices), _BATCH):
        loaded = [load_or_void(examples, index) for index in indices[i : i + _BATCH]]
        for (_, truth), logits in zip(loaded, model.scores([image for image, _ in loaded]), strict=True):
            values = (logits - logits.max(axis=0)).astype(np.float16)
            height, width = truth.shape
            scores = Scores(values, np.arange(len(values), dtype=np.int16), height, width, model.stride)
            mask, _ = refiner.refine(None, scores)
            total.add(truth, mask)
    return total
