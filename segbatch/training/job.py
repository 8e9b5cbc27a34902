"""The inputs of a training, read and checked before the first update."""

from __future__ import annotations

from dataclasses import dataclass

from segbatch.config.training import TrainSpec
from segbatch.errors import SpecError
from segbatch.evaluation.survey import LabelSurvey
from segbatch.labels import LabelSet
from segbatch.models.architecture import Architecture
from segbatch.protocols import Reporter
from segbatch.storage.store import Store
from segbatch.training.artifacts import refuse_foreign
from segbatch.training.examples import Examples
from segbatch.training.inputs import open_examples
from segbatch.training.network import architecture_of, labels_of
from segbatch.training.process_group import ProcessGroup


@dataclass(frozen=True)
class TrainingJob:
    """What a training reads and writes.

    Attributes:
        spec: The settings, completed by the recipe of the network.
        surveys: What the labels contain: of ``train``, and of ``val`` if there are validation images.
    """

    spec: TrainSpec
    architecture: Architecture
    labels: LabelSet
    train: Examples
    val: Examples | None
    store: Store
    reporter: Reporter
    surveys: dict[str, LabelSurvey]

    @property
    def title(self) -> str:
        """Name the network and the output, as the heading of the curves."""
        return f"{self.spec.model}: {self.store.uri}"

    def updates(self, epochs: float) -> int:
        """Return the number of updates in so many passes over the training images, at least 1."""
        return max(1, round(epochs * len(self.train) / self.spec.batch_size))


def prepare(spec: TrainSpec, reporter: Reporter) -> TrainingJob:
    """Return the job that a spec describes, after all checks that need no training.

    Raises:
        SegbatchError: Settings contradict each other, inputs or labels cannot be read or do not fit, or the output
            holds files that no training wrote.
    """
    architecture = architecture_of(spec.model)
    spec = spec.completed_by(architecture.recipe)
    labels = labels_of(spec, architecture)
    _check(spec, architecture)
    train, survey = open_examples(spec, spec.inputs, spec.labels, labels)
    surveys, val = {"train": survey}, None
    if spec.val:
        val, surveys["val"] = open_examples(spec, spec.val, spec.val_labels, labels)
    for name, found in surveys.items():
        for line in found.lines():
            reporter.message(line if name == "train" else f"validation {line}")
    store = Store(spec.output, spec.storage_options)
    refuse_foreign(store)
    return TrainingJob(spec, architecture, labels, train, val, store, reporter, surveys)


def _check(spec: TrainSpec, architecture: Architecture) -> None:
    Store(spec.output, spec.storage_options).refuse_unwritable()
    window = architecture.geometry.window
    if window is not None and spec.crop != window:
        raise SpecError(
            f"crop: {spec.model} takes {window[0]} x {window[1]} pixels alone; give --crop {window[0]} {window[1]}"
        )
    workers = ProcessGroup().size
    if spec.batch_size % (workers * spec.accumulate):
        raise SpecError(
            f"batch_size: {spec.batch_size} is not a multiple of workers x accumulate, {workers} x {spec.accumulate}"
        )
    if spec.val_labels is not None and not spec.val:
        raise SpecError("val_labels: there are no images for them; give --val")
    if spec.val and spec.val_labels is None and spec.label_column is None:
        raise SpecError("val: there are no labels for them; give --val-labels")
