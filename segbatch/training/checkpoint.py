"""Checkpoints: the state from which an interrupted training continues exactly."""

from __future__ import annotations

import io
import json
from importlib.metadata import version
from typing import Any

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor

from segbatch.config.training import TrainSpec
from segbatch.errors import OutputError, PlanError
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY, NewerFormat, check_version
from segbatch.storage.store import Store
from segbatch.training.artifacts import CHECKPOINT, HISTORY


class HistoryLine(BaseModel):
    """One validation: a line of ``history.jsonl``. The metrics are None without validation images.

    Attributes:
        epoch: Passes over the training images so far.
        loss: Mean over the updates since the line before.
        lr: Learning rate of the last update.
        class_iou: IoU of each class, None for one that neither the labels nor the masks contain.
    """

    model_config = ConfigDict(frozen=True)

    update: int
    epoch: float
    loss: float
    lr: float
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    class_iou: list[float | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the metrics if there are none."""
        return self.model_dump(exclude_none=True)


class TrainingState(BaseModel):
    """The state of a training after ``update`` updates.

    No state of random generators is needed: all random numbers follow from the seed and the number of the update or of
    the image in the stream.

    Attributes:
        network: State dict of the trained network.
        optimizer: State dict of the optimizer.
        average: State dict of the moving average of the weights, if there is one.
        class_weights: Weight of each class in the loss, if they are not all 1.
        best: Highest validation mean IoU so far.
        loss: Sum and number of the losses since the last line of the history.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    update: int = 0
    network: dict[str, Tensor] = {}
    # Checkpoints of early versions have the British spelling.
    optimizer: dict[str, Any] = Field({}, validation_alias=AliasChoices("optimizer", "optimiser"))
    average: dict[str, Tensor] | None = None
    class_weights: list[float] | None = None
    best: float | None = None
    loss: tuple[float, int] = (0.0, 0)
    history: list[HistoryLine] = []


class Checkpoint(BaseModel):
    """The content of ``checkpoint.pt``. Unknown keys, which a later minor version writes, are ignored.

    Attributes:
        spec: The settings that two runs of one training share, see ``TrainSpec.decisive``.
    """

    spec: dict[str, str]
    state: TrainingState


def save(store: Store, spec: TrainSpec, state: TrainingState) -> None:
    """Write the checkpoint and the history, each atomically. Raises ``OutputError``."""
    out = io.BytesIO()
    fields = {**dict(state), "history": [line.to_json() for line in state.history]}
    versions = {VERSION_KEY: FORMAT_VERSION, "written_by": version("segbatch")}
    torch.save({**versions, "spec": spec.decisive(), "state": fields}, out)
    store.write(CHECKPOINT, out.getvalue())
    store.write(HISTORY, "".join(json.dumps(line.to_json()) + "\n" for line in state.history).encode())


def load(store: Store, spec: TrainSpec) -> TrainingState | None:
    """Return the state of the last checkpoint, on the CPU, or None if there is no checkpoint.

    Raises:
        NewerFormat: It has a newer major format version.
        OutputError: It cannot be read.
        PlanError: It is that of a training with other settings.
    """
    try:
        data = store.read(CHECKPOINT)
    except FileNotFoundError:
        return None
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        check_version(loaded.get(VERSION_KEY), f"output {store.uri}: {CHECKPOINT}", str(loaded.get("written_by", "")))
        saved = Checkpoint.model_validate(loaded)
    except NewerFormat:
        raise
    except Exception as e:  # storage boundary: torch documents no exceptions for damaged files
        raise OutputError(
            f"output {store.uri}: {CHECKPOINT} cannot be read ({str(e).splitlines()[0]}); "
            "remove it, or give --overwrite"
        ) from e
    before, now = saved.spec, spec.decisive()
    differ = [
        f"{k}: {before.get(k)} then, {now.get(k)} now" for k in sorted({*before, *now}) if before.get(k) != now.get(k)
    ]
    if differ:
        raise PlanError(
            f"output {store.uri}: holds another training ({'; '.join(differ)}); give another --output, or --overwrite"
        )
    return saved.state
