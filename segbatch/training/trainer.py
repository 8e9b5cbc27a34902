"""The training loop: update, validate, keep the best weights, save checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from segbatch.config.training import TrainSpec
from segbatch.evaluation.confusion import Confusion
from segbatch.logs import LogReporter
from segbatch.models.runner import resolve_device
from segbatch.protocols import Reporter
from segbatch.text import counted, duration
from segbatch.training import artifacts, checkpoint
from segbatch.training.augment import Augment
from segbatch.training.checkpoint import HistoryLine, TrainingState
from segbatch.training.curves import can_plot, curves
from segbatch.training.examples import load_or_placeholder
from segbatch.training.job import TrainingJob, prepare
from segbatch.training.network import inference_model, init_network
from segbatch.training.objective import median_frequency
from segbatch.training.optimize import learning_rate_factor
from segbatch.training.process_group import ProcessGroup
from segbatch.training.result import TrainingResult
from segbatch.training.step import TrainStep
from segbatch.training.stream import Stream
from segbatch.training.validate import confusion

_REPORT_SECONDS = 60.0


def train(spec: TrainSpec, *, reporter: Reporter | None = None) -> TrainingResult:
    """Train a network on labeled images in this process, which may be one of a process group.

    The output then holds the weights, their metrics and curves (docs/training.md). The same call after a failure
    continues from the last checkpoint; on a CPU the weights are then bit for bit those of an uninterrupted training.

    Args:
        spec: What to train, and on what. The recipe of the network supplies what it does not give.
        reporter: Receives a message per validation, and one per minute between them.

    Raises:
        SegbatchError: The last checkpoint is kept; the same call continues from it.
    """
    reporter = reporter or LogReporter()
    reporter.phase("reading images and labels")
    try:
        job = prepare(spec, reporter)
    finally:
        reporter.closed()
    if spec.overwrite:
        artifacts.clear(job.store)
    device = resolve_device(spec.device)
    with ExitStack() as restored:  # the caller's threads and random numbers
        restored.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if spec.threads is not None:
            restored.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(spec.threads)
        return Trainer(job, device).run()


class Trainer:
    """The updates of one training, in each of the processes that share its batches."""

    def __init__(self, job: TrainingJob, device: torch.device) -> None:
        self.job, self.spec, self.device, self.group = job, job.spec, device, ProcessGroup()
        resumed = checkpoint.load(job.store, self.spec)
        network, origin = self._network(resumed)
        self.state = resumed or TrainingState(class_weights=self._class_weights())
        self.total = job.updates(self.spec.epochs)
        self.last = self.total if self.spec.stop_after is None else min(self.total, job.updates(self.spec.stop_after))
        self.step = TrainStep(job, network, self.state, device, self.total)
        spec, mean_color = self.spec, job.architecture.preprocess.mean_color()
        self.stream = Stream(job.train, Augment(spec.crop, spec.scale, spec.flip, spec.jitter, mean_color), spec.seed)
        job.reporter.message(
            f"{spec.model}, {counted(len(job.labels), 'class')}, from {origin}; {counted(len(job.train), 'image')}"
            + (f", {len(job.val)} to validate on" if job.val else "")
            + f"; {self.last} updates of {spec.batch_size} on {device} in {'bf16' if self.step.bf16 else 'fp32'}"
            + (f"; resumed after update {self.state.update}" if resumed else "")
        )

    def run(self) -> TrainingResult:
        """Take the remaining updates and return the result."""
        begun = reported = saved = time.monotonic()
        first, interval = self.state.update, self.job.updates(self.spec.validate_every)
        batches = self.stream.batches(self._places(), self.spec.loaders)
        for update in range(first, self.last):
            loss = self.step(update, batches)
            self.state.update = done = update + 1
            self.state.loss = (self.state.loss[0] + loss, self.state.loss[1] + 1)
            now = time.monotonic()
            speed = (done - first) * self.spec.batch_size / (now - begun)
            left = f"{speed:.1f} images/s, {duration((self.last - done) * self.spec.batch_size / speed)} left"
            if done % interval == 0 or done == self.last:
                self._validate(left)
                reported = saved = time.monotonic()
            elif now - reported > _REPORT_SECONDS:
                self.job.reporter.message(f"update {done}/{self.last}: loss {loss:.4g}; {left}")
                reported = now
            if now - saved > 60 * self.spec.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        return self._finish(time.monotonic() - begun)

    def _places(self) -> Iterator[range]:
        """The places in the stream of each remaining forward pass of this process."""
        size = self.spec.batch_size // (self.group.size * self.spec.accumulate)
        for update in range(self.state.update, self.last):
            for part in self.step.parts:
                first = update * self.spec.batch_size + part * size
                yield range(first, first + size)

    def _network(self, resumed: TrainingState | None) -> tuple[nn.Module, str]:
        """The network with its initial weights or those of a checkpoint, and where these come from."""
        if resumed is None:
            return init_network(self.spec, self.job.architecture, self.job.labels)
        scratch = self.spec.model_copy(update={"init": "scratch"})
        network, _ = init_network(scratch, self.job.architecture, self.job.labels)
        network.load_state_dict(resumed.network)
        return network, "the checkpoint"

    def _class_weights(self) -> list[float] | None:
        if self.spec.balance == "none":
            return None
        self.job.reporter.message(f"counting the classes of {counted(len(self.job.train), 'label')}")
        truths = (load_or_placeholder(self.job.train, i)[1] for i in range(len(self.job.train)))
        return (median_frequency(truths, len(self.job.labels)) ** self.spec.balance_power).tolist()

    def _inference_state(self) -> dict[str, Tensor]:
        """Return the weights as they are written: calibrated and rounded as the spec asks."""
        state = self.step.inference_state()
        weights, bias = self.state.class_weights, self.job.architecture.head.replace("weight", "bias")
        if self.spec.calibrate and weights is not None:
            # A loss weighted by w teaches w times each class's probability; a class without pixels has no weight.
            given = torch.tensor(weights)
            state[bias] = state[bias] - torch.where(given > 0, given, 1).log()
        half = self.spec.weights_precision == "fp16"
        return {k: v.half().float() if half and v.is_floating_point() else v for k, v in state.items()}

    def _validate(self, left: str) -> None:
        """Add a line to the history, write the weights if none were better, save a checkpoint."""
        state, inference = self.state, self._inference_state()
        line = self._measure(inference)
        improved = line.mean_iou is None or state.best is None or line.mean_iou > state.best
        state.history.append(line)
        state.loss = (0.0, 0)
        if improved:
            state.best = line.mean_iou
            metadata = {"model": self.spec.model, "classes": self.job.labels.names, "epoch": line.epoch}
            half = self.spec.weights_precision == "fp16"
            self._write(artifacts.WEIGHTS, lambda: artifacts.weights_file(inference, half, metadata))
        iou = "" if line.mean_iou is None else f", mean IoU {line.mean_iou:.4f}{' (best)' if improved else ''}"
        self.job.reporter.message(
            f"epoch {line.epoch:g}/{self.spec.epochs:g}: loss {line.loss:.4g}, lr {line.lr:.3g}{iou}; {left}"
        )
        self._save()
        if can_plot():
            self._write(artifacts.CURVES, lambda: curves(state.history, self.job.title))

    def _measure(self, inference: dict[str, Tensor]) -> HistoryLine:
        """The loss since the line before, and the metrics of the weights on the validation images."""
        spec, state = self.spec, self.state
        matrix = self._confusion(inference)
        return HistoryLine(
            update=state.update,
            epoch=round(state.update * spec.batch_size / len(self.job.train), 4),
            loss=state.loss[0] / max(1, state.loss[1]),
            lr=spec.lr * learning_rate_factor(spec, state.update - 1, self.total),
            mean_iou=None if matrix is None else matrix.mean_iou,
            pixel_accuracy=None if matrix is None else matrix.pixel_accuracy,
            class_iou=None if matrix is None else [None if np.isnan(v) else float(v) for v in matrix.iou],
        )

    def _confusion(self, inference: dict[str, Tensor]) -> Confusion | None:
        val = self.job.val
        if val is None:
            return None
        job = self.job
        model = inference_model(job.architecture, job.labels, inference, self.device, self.spec.batch_size)
        matrix = confusion(model, val, range(self.group.rank, len(val), self.group.size))
        matrix.counts = self.group.sum_counts(matrix.counts, self.device)
        return matrix

    def _write(self, name: str, make: Callable[[], bytes]) -> None:
        if self.group.is_main:
            self.job.store.write(name, make())

    def _save(self) -> None:
        if self.group.is_main:
            self.step.store(self.state)
            checkpoint.save(self.job.store, self.spec, self.state)

    def _finish(self, seconds: float) -> TrainingResult:
        measured = [line for line in self.state.history if line.mean_iou is not None]
        kept = max(measured, key=lambda line: line.mean_iou or 0.0) if measured else self.state.history[-1]
        store = self.job.store
        self._write(artifacts.CLASSES, lambda: artifacts.classes_file(self.job.labels))
        surveys = {name: survey.to_json() for name, survey in self.job.surveys.items()}
        record = {"spec": self.spec.public(), "kept": kept.to_json(), "labels": surveys}
        self._write(artifacts.RECORD, lambda: (json.dumps(record, indent=1) + "\n").encode())
        return TrainingResult(
            model=self.spec.model,
            weights=f"{store.uri}/{artifacts.WEIGHTS}",
            classes=f"{store.uri}/{artifacts.CLASSES}",
            labels=self.job.labels,
            updates=self.state.update,
            seconds=seconds,
            mean_iou=kept.mean_iou,
            pixel_accuracy=kept.pixel_accuracy,
            class_iou=None if kept.class_iou is None else tuple(np.array(kept.class_iou, np.float64).tolist()),
            epoch=kept.epoch,
        )
