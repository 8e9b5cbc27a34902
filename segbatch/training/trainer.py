"""One training from beginning to end: read, learn, validate, keep the best, and go on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segbatch.config.training import TrainSpec
from segbatch.errors import NetworkError, SpecError
from segbatch.evaluation.confusion import Confusion
from segbatch.evaluation.survey import LabelSurvey
from segbatch.labels import LabelSet
from segbatch.logs import LogReporter
from segbatch.models.base import resolve_device, supports_bf16
from segbatch.protocols import Reporter
from segbatch.storage.store import Store
from segbatch.training import state as states
from segbatch.training.augment import Augment
from segbatch.training.curves import can_plot, curves
from segbatch.training.examples import Examples, load_or_void
from segbatch.training.inputs import open_examples
from segbatch.training.network import (
    Feed,
    architecture_of,
    class_keys,
    inference_model,
    init_network,
    labels_of,
    parameter_groups,
    set_train_mode,
)
from segbatch.training.objective import median_frequency, segmentation_loss
from segbatch.training.optimize import EMA, learning_rate
from segbatch.training.state import State
from segbatch.training.stream import Batch, Stream
from segbatch.training.validate import confusion
from segbatch.training.world import ProcessGroup

_REPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Trained:
    """What came of a training: the files ``weights`` and ``classes``, and the figures of these weights.

    ``epoch`` is that of the weights. Without validation there are no figures, and the weights are the last.
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


@dataclass
class TrainingJob:
    """All that is read before the first update."""

    spec: TrainSpec
    labels: LabelSet
    train: Examples
    val: Examples | None
    store: Store
    reporter: Reporter
    surveys: dict[str, LabelSurvey] = field(default_factory=dict)


def prepare(spec: TrainSpec, reporter: Reporter | None = None) -> TrainingJob:
    """Find what is wrong before any work: raises ``SpecError``, ``SourceError``, ``ModelError``, ``OutputError``."""
    reporter = reporter or LogReporter()
    architecture = architecture_of(spec.model)
    spec = spec.completed_by(architecture.recipe)
    labels = labels_of(spec, architecture)
    window = architecture.geometry.window
    if window is not None and spec.crop != window:
        raise SpecError(
            f"crop: {spec.model} takes {window[0]} x {window[1]} pixels alone; give --crop {window[0]} {window[1]}"
        )
    workers = ProcessGroup().size
    if spec.batch_size % (workers * spec.accumulate):
        raise SpecError(
            f"batch_size: {spec.batch_size} is no multiple of workers x accumulate, {workers} x {spec.accumulate}"
        )
    if spec.val_labels is not None and not spec.val:
        raise SpecError("val_labels: there are no images for them; give --val")
    if spec.val and spec.val_labels is None and spec.label_column is None:
        raise SpecError("val: there are no labels for them; give --val-labels")
    train, surveyed = open_examples(spec, spec.inputs, spec.labels, labels)
    surveys, val = {"train": surveyed}, None
    if spec.val:
        val, surveys["val"] = open_examples(spec, spec.val, spec.val_labels, labels)
    for name, found in surveys.items():
        for line in found.lines():
            reporter.message(line if name == "train" else f"validation {line}")
    store = Store(spec.output, spec.storage_options)
    states.refuse_foreign(store)
    return TrainingJob(spec, labels, train, val, store, reporter, surveys)


def train(spec: TrainSpec, *, reporter: Reporter | None = None) -> Trained:
    """Learn from labeled images in this process, which may be one of a process group's workers.

    The output then holds ``weights.safetensors``, curves and figures (docs/training.md). Called again after a failure,
    it goes on from the last checkpoint, and on a CPU ends with the same weights to the bit as if nothing had happened.
    Raises ``NetworkError``.
    """
    job = prepare(spec, reporter)
    if spec.overwrite:
        states.clear(job.store)
    return Trainer(job).run()


class Trainer:
    """One network on its way through the updates of one job, in each of the workers that share the batches."""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.spec, self.world = job, job.spec, ProcessGroup()
        if self.spec.threads is not None:
            torch.set_num_threads(self.spec.threads)
        self.device = resolve_device(self.spec.device)
        bf16 = self.spec.precision == "bf16"
        if self.spec.precision == "auto":
            bf16 = self.device.type == "cuda" and supports_bf16(str(self.device))
        self.bf16 = bf16
        self.architecture = architecture_of(self.spec.model)
        self.heads = class_keys(self.architecture)
        resumed = states.load(job.store, self.spec)
        self.network, origin = (
            init_network(self.spec, self.architecture, job.labels) if resumed is None else self._blank()
        )
        self.network.to(self.device)
        groups = parameter_groups(self.network, self.spec, self.heads)
        self.optimizer = torch.optim.SGD(groups, lr=self.spec.lr, momentum=self.spec.momentum)
        self.average = EMA(self.network, self.spec.ema) if self.spec.ema else None
        self.state = resumed or State(0, {}, {}, None, self._class_weights(), None)
        if resumed is not None:
            self._restore(resumed)
        weights = self.state.class_weights
        self.class_weights = None if weights is None else torch.tensor(weights, device=self.device)
        self.feed = Feed(self.architecture, self.device)
        augment = Augment(
            self.spec.crop,
            self.spec.scale,
            self.spec.flip,
            self.spec.jitter,
            self.architecture.preprocess.mean_color(),
        )
        self.stream = Stream(job.train, augment, self.spec.seed)
        self.total = self._updates(self.spec.epochs)
        until = self.total if self.spec.until is None else self._updates(self.spec.until)
        self.last = min(until, self.total)
        self.interval = self._updates(self.spec.validate_every)
        job.reporter.message(
            f"{self.spec.model}, {len(job.labels)} classes, from {origin}; {len(job.train)} images"
            + (f", {len(job.val)} to validate on" if job.val else "")
            + f"; {self.last} updates of {self.spec.batch_size} on {self.device} in {'bf16' if bf16 else 'fp32'}"
            + (f"; going on after update {self.state.update}" if resumed else "")
        )

    def run(self) -> Trained:
        """All updates that are left, then the closing record."""
        begun = told = saved = time.monotonic()
        first = self.state.update
        batches = self.stream.batches(self._places(), self.spec.loaders)
        for update in range(first, self.last):
            loss = self._update(update, batches)
            self.state.update = update + 1
            self.state.loss = (self.state.loss[0] + loss, self.state.loss[1] + 1)
            done, now = update + 1, time.monotonic()
            speed = (done - first) * self.spec.batch_size / (now - begun)
            left = f"{speed:.1f} images/s, {_duration((self.last - done) * self.spec.batch_size / speed)} left"
            if done % self.interval == 0 or done == self.last:
                self._validate(left)
                told = time.monotonic()
            elif now - told > _REPORT_SECONDS:
                self.job.reporter.message(f"update {done}/{self.last}: loss {loss:.4g}; {left}")
                told = now
            if done == self.last or now - saved > 60 * self.spec.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        return self._finish(time.monotonic() - begun)

    def _updates(self, epochs: float) -> int:
        return max(1, round(epochs * len(self.job.train) / self.spec.batch_size))

    def _places(self) -> Iterator[range]:
        """The places in the stream of each forward pass that is left."""
        size = self.spec.batch_size // (self.world.size * self.spec.accumulate)
        for update in range(self.state.update, self.last):
            for part in self._parts():
                first = update * self.spec.batch_size + part * size
                yield range(first, first + size)

    def _parts(self) -> range:
        """Which parts of a batch are this worker's: the batch falls into as many as there are forward passes."""
        return range(self.world.rank * self.spec.accumulate, (self.world.rank + 1) * self.spec.accumulate)

    def _update(self, update: int, batches: Iterator[Batch]) -> float:
        """One step down the gradient; the loss before it."""
        set_train_mode(self.network, self.spec)
        rate = learning_rate(self.spec, update, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(1, dtype=torch.float64)
        for part in self._parts():
            # Dropout follows from the place, as all else that is random: see ``State``.
            torch.manual_seed(hash((self.spec.seed, update, part)) & 0x7FFFFFFF)
            losses += self._backward(next(batches))
        self.world.sum_gradients(self.network)
        loss = self.world.sum(losses.to(self.device)).item()
        if not np.isfinite(loss):
            raise NetworkError(f"the loss is {loss} at update {update + 1}: lower --lr, now {self.spec.lr:g}")
        self.optimizer.step()
        if self.average is not None:
            self.average.add(self.network, update + 1)
        return loss

    def _backward(self, batch: Batch) -> float:
        x, truth = self.feed(batch)
        share = 1.0 if self.spec.reduction == "sum" else 1.0 / (self.world.size * self.spec.accumulate)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                scores, truth = self.architecture.training_scores(self.network, x, truth)
                loss = share * segmentation_loss(
                    scores,
                    truth,
                    weight=self.class_weights,
                    reduction=self.spec.reduction,
                    hardest=self.spec.hardest,
                )
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):
                raise
            raise SpecError(
                f"batch_size: {self.spec.model} normalizes over the images of a forward pass and cannot learn from "
                f"{len(batch)}; give a larger --batch-size, a smaller --accumulate, or --freeze-norm"
            ) from e
        loss.backward()
        return float(loss.detach())

    def _shipped(self) -> dict[str, Tensor]:
        """The weights as they are now, as they would be written: rounded, on the CPU, the same in all workers."""
        source = self.network.state_dict() if self.average is None else self.average.state
        self.world.share(source)
        half = self.spec.weights_precision == "fp16"
        state = {k: v.detach().cpu() for k, v in source.items()}
        weights, bias = self.state.class_weights, self.architecture.head.replace("weight", "bias")
        if self.spec.calibrate and weights is not None:
            # A loss weighted by w teaches w times each class's probability; a class that occurs nowhere has no weight.
            given = torch.tensor(weights)
            state[bias] = state[bias] - torch.where(given > 0, given, 1).log()
        return {k: v.half().float() if half and v.is_floating_point() else v.clone() for k, v in state.items()}

    def _validate(self, left: str) -> None:
        """A line of history; the weights are written if they are the best so far, or if nothing tells."""
        spec, state = self.spec, self.state
        epoch = round(state.update * spec.batch_size / len(self.job.train), 4)
        loss = state.loss[0] / max(1, state.loss[1])
        line: dict[str, Any] = {"update": state.update, "epoch": epoch, "loss": loss}
        line["lr"] = learning_rate(spec, state.update - 1, self.total)
        shipped = self._shipped()
        found = self._measure(shipped)
        told = ""
        if found is not None:
            line |= {"mean_iou": found.mean_iou, "pixel_accuracy": found.pixel_accuracy}
            line["class_iou"] = [None if np.isnan(v) else float(v) for v in found.iou]
            better = state.best is None or found.mean_iou > state.best
            told = f", mean IoU {found.mean_iou:.4f}{' (best)' if better else ''}"
        state.history.append(line)
        state.loss = (0.0, 0)
        if found is None or better:
            state.best = found.mean_iou if found else None
            about = {"model": spec.model, "classes": self.job.labels.names, "epoch": epoch}
            half = spec.weights_precision == "fp16"
            self._write(states.WEIGHTS, lambda: states.export(shipped, half, about))
        self.job.reporter.message(
            f"epoch {epoch:g}/{spec.epochs:g}: loss {loss:.4g}, lr {line['lr']:.3g}{told}; {left}"
        )
        self._save()
        if can_plot():
            self._write(states.CURVES, lambda: curves(state.history, f"{spec.model}: {self.job.store.uri}"))

    def _write(self, name: str, make: Callable[[], bytes]) -> None:
        if self.world.first:
            self.job.store.write(name, make())

    def _measure(self, shipped: dict[str, Tensor]) -> Confusion | None:
        if self.job.val is None:
            return None
        model = inference_model(self.architecture, self.job.labels, shipped, self.device, self.spec.batch_size)
        found = confusion(model, self.job.val, range(self.world.rank, len(self.job.val), self.world.size))
        found.counts = self.world.sum_counts(found.counts, self.device)
        return found

    def _save(self) -> None:
        """Checkpoint: everything on the CPU, whole."""
        if not self.world.first:
            return
        state = self.state
        state.network = {k: v.detach().cpu() for k, v in self.network.state_dict().items()}
        state.optimizer = self.optimizer.state_dict()
        if self.average is not None:
            state.average = {k: v.cpu() for k, v in self.average.state.items()}
        states.save(self.job.store, self.spec, state)

    def _restore(self, state: State) -> None:
        self.network.load_state_dict(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        if self.average is not None and state.average is not None:
            self.average.load(state.average)

    def _blank(self) -> tuple[nn.Module, str]:
        """The network whose numbers a checkpoint has."""
        scratch = self.spec.model_copy(update={"init": "scratch"})
        return init_network(scratch, self.architecture, self.job.labels)[0], "the checkpoint"

    def _class_weights(self) -> list[float] | None:
        if self.spec.balance == "none":
            return None
        self.job.reporter.message(f"counting the classes of {len(self.job.train)} labels")
        truths = (load_or_void(self.job.train, i)[1] for i in range(len(self.job.train)))
        return (median_frequency(truths, len(self.job.labels)) ** self.spec.balance_power).tolist()

    def _finish(self, seconds: float) -> Trained:
        measured = [line for line in self.state.history if line.get("mean_iou") is not None]
        kept = max(measured, key=lambda line: line["mean_iou"]) if measured else self.state.history[-1]
        store = self.job.store
        trained = Trained(
            model=self.spec.model,
            weights=f"{store.uri}/{states.WEIGHTS}",
            classes=f"{store.uri}/{states.CLASSES}",
            labels=self.job.labels,
            updates=self.state.update,
            seconds=seconds,
            mean_iou=kept.get("mean_iou"),
            pixel_accuracy=kept.get("pixel_accuracy"),
            class_iou=tuple(float("nan") if v is None else v for v in kept["class_iou"]) if measured else None,
            epoch=kept["epoch"],
        )
        self._write(states.CLASSES, lambda: states.classes_file(self.job.labels))
        surveys = {name: found.to_json() for name, found in self.job.surveys.items()}
        record = {"spec": self.spec.public(), "kept": kept, "labels": surveys}
        self._write(states.RECORD, lambda: (json.dumps(record, indent=1) + "\n").encode())
        return trained


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
