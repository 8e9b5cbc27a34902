"""Stepping: the schedule of the learning rate, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segbatch.config.training import TrainSpec


def learning_rate(spec: TrainSpec, update: int, total: int) -> float:
    """Of update ``update`` of ``total``, from 0: poly falls to 0 just after the last (Chen et al. 2017, sec. 4.1)."""
    rate = spec.lr * ((1 - update / total) ** spec.power if spec.schedule == "poly" else 1.0)
    return rate * min(1.0, (update + 1) / spec.warmup) if spec.warmup else rate


class EMA:
    """An exponential moving average of all of a network's numbers, buffers too.

    Young averages forget faster, ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the random beginning
    does not linger.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def add(self, network: nn.Module, updates: int) -> None:
        """Take in the network as it is after ``updates`` updates."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)

    def load(self, state: Mapping[str, Tensor]) -> None:
        for key, value in state.items():
            self.state[key].copy_(value)
