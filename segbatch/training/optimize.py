"""The optimizer of a training, its learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from segbatch.config.training import TrainSpec
from segbatch.training.checkpoint import TrainingState
from segbatch.training.network import parameter_groups


def learning_rate_factor(spec: TrainSpec, update: int, total: int) -> float:
    """Return what the learning rate of an update is multiplied by.

    The poly schedule is ``(1 - update / total) ** power`` (Chen et al. 2017, sec. 4.1), after a linear warmup.

    Args:
        update: From 0.
        total: Updates of the whole training.
    """
    factor = (1 - update / total) ** spec.power if spec.schedule == "poly" else 1.0
    return factor * min(1.0, (update + 1) / spec.warmup) if spec.warmup else factor


def make_optimizer(
    network: nn.Module, spec: TrainSpec, heads: set[str], state: TrainingState, total: int
) -> tuple[SGD, LambdaLR]:
    """Return SGD with momentum and its schedule, both as they are after ``state.update`` updates.

    Args:
        heads: Keys of the parameters whose learning rate is multiplied by ``spec.head_lr``.
        total: Updates of the whole training.
    """
    optimizer = SGD(parameter_groups(network, spec, heads), lr=spec.lr, momentum=spec.momentum)
    if state.optimizer:
        # Of a checkpoint the momentum alone: the groups follow from the spec, which is the checkpoint's.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state.optimizer["state"], "param_groups": groups})
    factor = partial(learning_rate_factor, spec, total=total)
    return optimizer, LambdaLR(optimizer, factor, last_epoch=state.update - 1)


def make_average(network: nn.Module, decay: float, state: TrainingState) -> AveragedModel | None:
    """Return the moving average of parameters and buffers as of ``state``; None for a decay of 0.

    It is exponential. The decay of update n is ``min(decay, (1 + n) / (10 + n))``, so that the
    initial weights lose their influence early. Integer buffers are copied.
    """
    if not decay:
        return None

    def average(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(values), 1 - min(decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(list(averages), list(values))

    averaged = AveragedModel(network, multi_avg_fn=torch.no_grad()(average), use_buffers=True)
    if state.average is not None:
        averaged.module.load_state_dict(state.average)
    # The initial weights count as the first of the averaged models.
    averaged.n_averaged.fill_(state.update + 1)
    return averaged
