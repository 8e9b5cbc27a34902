"""A model without a network, to measure the pipeline around it. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.models.info import DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.weights import read_labels
from segbatch.protocols import Model


class NullModel:
    """Scores class 0 highest at every cell, from the sizes of the images alone."""

    name = "null"
    stride = 32

    def __init__(self, labels: LabelSet, digest: str) -> None:
        self.labels, self.digest = labels, digest

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        """Return scores of each image, float32 (C, ceil(H / 32), ceil(W / 32)): 1 for class 0, 0 for the others."""
        out = []
        for image in images:
            height, width = image.shape[:2]
            values = np.zeros((len(self.labels), -(-height // self.stride), -(-width // self.stride)), np.float32)
            values[0] = 1
            out.append(values)
        return out


class NullEntry:
    """The registry entry of ``null``. It takes no weights; ``--classes`` replaces its classes."""

    def describe(self, choice: ModelRequest) -> ModelInfo:
        if choice.weights != "default":
            raise SpecError(f"model 'null' has no weights, got {choice.weights!r}; omit --weights")
        labels = LabelSet.of(("background", "other"))
        if choice.classes is not None:
            labels = read_labels(choice.classes, None, "null", choice.storage_options)
        return ModelInfo(
            name=NullModel.name,
            summary="class 0 everywhere, without a network: for scale tests and dry runs",
            weights="none",
            source="none",
            labels=labels,
            stride=NullModel.stride,
            digest=f"null:{len(labels)}",
            parameters=0,
            accuracy="none",
        )

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> Model:
        info = self.describe(choice)
        return NullModel(info.labels, info.digest)

    def infos(self) -> list[ModelInfo]:
        return [replace(self.describe(ModelRequest()), weights="default")]

    def architecture(self) -> None:
        """Return None: there is nothing to train."""


NULL = NullEntry()
