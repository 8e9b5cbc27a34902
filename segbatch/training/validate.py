"""Validation by the masks that ``segbatch run --refiner none`` computes with the same weights."""

from __future__ import annotations

from collections.abc import Sequence

from segbatch.errors import ModelError, RecordFailure
from segbatch.evaluation.confusion import Confusion
from segbatch.models.runner import TorchModel
from segbatch.stages.scoring import unrefined_mask
from segbatch.training.examples import Examples, load_or_placeholder

_BATCH = 4


def confusion(model: TorchModel, examples: Examples, indices: Sequence[int]) -> Confusion:
    """Return the confusion matrix of the examples ``indices``.

    Raises:
        ModelError: The scores of an image are not finite.
        RecordFailure: The model cannot score an image, see ``TorchModel.scores``.
    """
    total = Confusion(len(model.labels))
    for i in range(0, len(indices), _BATCH):
        batch = indices[i : i + _BATCH]
        loaded = [load_or_placeholder(examples, index) for index in batch]
        scores = model.scores([image for image, _ in loaded])
        for index, (_, truth), logits in zip(batch, loaded, scores, strict=True):
            height, width = truth.shape
            try:
                mask = unrefined_mask(logits, height, width, model.stride)
            except RecordFailure as e:
                raise ModelError(
                    f"validation image of label {examples.label(index)[0]}: the network's scores hold NaN or infinity: "
                    "lower --lr, or give --weights-precision fp32"
                ) from e
            total.add(truth, mask)
    return total
