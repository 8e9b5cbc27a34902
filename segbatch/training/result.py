"""The result of a training. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from segbatch.labels import LabelSet


@dataclass(frozen=True)
class TrainingResult:
    """The weights of a training and their metrics on the validation images, None if there are none.

    Attributes:
        weights: URI of the weights with the highest validation mean IoU, without validation of the last ones.
        classes: URI of the class names and colors.
        updates: Optimizer steps so far, those of earlier calls included.
        seconds: Duration of this call.
        class_iou: IoU of each class, NaN for one that neither the labels nor the masks contain.
        epoch: Passes over the training images at which the weights were taken.
    """

    model: str
    weights: str
    classes: str
    labels: LabelSet
    updates: int
    seconds: float
    mean_iou: float | None
    pixel_accuracy: float | None
    class_iou: tuple[float, ...] | None
    epoch: float
