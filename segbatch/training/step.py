"""One update of a training: forward and backward passes over a batch, and the optimizer step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from segbatch.errors import SegbatchError, SpecError
from segbatch.models.runner import supports_bf16
from segbatch.training.checkpoint import TrainingState
from segbatch.training.job import TrainingJob
from segbatch.training.network import class_keys, collate, set_train_mode
from segbatch.training.objective import segmentation_loss
from segbatch.training.optimize import make_average, make_optimizer
from segbatch.training.process_group import ProcessGroup
from segbatch.training.stream import Batch


class TrainStep:
    """The network in training with its optimizer, schedule and moving average, in one process.

    Args:
        network: On the CPU, with its initial weights, or those of the checkpoint ``state``.
        total: Updates of the whole training, for the schedule.
    """

    def __init__(
        self, job: TrainingJob, network: nn.Module, state: TrainingState, device: torch.device, total: int
    ) -> None:
        spec = job.spec
        self.spec, self.architecture, self.device, self.group = spec, job.architecture, device, ProcessGroup()
        self.bf16 = spec.precision == "bf16"
        if spec.precision == "auto":
            self.bf16 = device.type == "cuda" and supports_bf16(str(device))
        self.network = network.to(device)
        heads = class_keys(job.architecture)
        self._optimizer, self._schedule = make_optimizer(self.network, spec, heads, state, total)
        self._average = make_average(self.network, spec.ema, state)
        weights = state.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, device=device)

    @property
    def parts(self) -> range:
        """Which parts of a batch this process computes: a batch has one part for each forward pass."""
        accumulate = self.spec.accumulate
        return range(self.group.rank * accumulate, (self.group.rank + 1) * accumulate)

    def __call__(self, update: int, batches: Iterator[Batch]) -> float:
        """Take one optimizer step and return the loss before it, over the batch of all processes.

        Args:
            update: From 0; the random numbers of dropout follow from it.
            batches: One for each of ``parts``.

        Raises:
            SegbatchError: The loss is not finite.
        """
        set_train_mode(self.network, self.spec)
        self._optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(1, dtype=torch.float64)
        for part in self.parts:
            torch.manual_seed(hash((self.spec.seed, update, part)) & 0x7FFFFFFF)
            losses += self._backward(next(batches))
        self.group.sum_gradients(self.network)
        loss = self.group.sum(losses.to(self.device)).item()
        if not np.isfinite(loss):
            raise SegbatchError(f"the loss is {loss} at update {update + 1}: lower --lr, now {self.spec.lr:g}")
        self._optimizer.step()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return loss

    def _backward(self, batch: Batch) -> float:
        x, truth = collate(batch, self.architecture, self.device)
        factor = 1.0 if self.spec.reduction == "sum" else 1.0 / (self.group.size * self.spec.accumulate)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                scores, truth = self.architecture.training_scores(self.network, x, truth)
                loss = factor * segmentation_loss(
                    scores,
                    truth,
                    weight=self._class_weights,
                    reduction=self.spec.reduction,
                    ohem_fraction=self.spec.hardest,
                )
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):
                raise
            raise SpecError(
                f"batch_size: {self.spec.model} normalizes over the images of a forward pass and cannot be trained on "
                f"{len(batch)}; give a larger --batch-size, a smaller --accumulate, or --freeze-norm"
            ) from e
        loss.backward()
        return float(loss.detach())

    def inference_state(self) -> dict[str, Tensor]:
        """Return a copy of the weights, averaged if they are: on the CPU, equal in all processes."""
        source = (self.network if self._average is None else self._average.module).state_dict()
        self.group.broadcast(source)
        return {key: value.detach().cpu().clone() for key, value in source.items()}

    def store(self, state: TrainingState) -> None:
        """Put the network, the optimizer and the average into ``state``, on the CPU."""
        state.network = {key: value.detach().cpu() for key, value in self.network.state_dict().items()}
        state.optimizer = self._optimizer.state_dict()
        if self._average is not None:
            state.average = {key: value.cpu() for key, value in self._average.module.state_dict().items()}
