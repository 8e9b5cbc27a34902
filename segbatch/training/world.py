"""The workers of one training: what each does of an update, and how they agree. torch.distributed, no Ray."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


class ProcessGroup:
    """``size`` processes, of which this one is number ``rank``; alone it is all of them.

    In a process group (gloo or nccl) every method is to be called by all of its workers.
    """

    def __init__(self) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)

    @property
    def first(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def sum_gradients(self, network: nn.Module) -> None:
        """Leave in every worker the sum of all workers' gradients, by one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        together = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(together)
        for gradient, summed in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the workers' tensors, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def sum_counts(self, counts: np.ndarray, device: torch.device) -> np.ndarray:
        """The sum of the workers' int64 arrays."""
        return self.sum(torch.from_numpy(counts).to(device)).cpu().numpy()

    def share(self, state: dict[str, Tensor]) -> None:
        """Give every worker the first one's tensors: statistics of batch normalization differ until then."""
        if self.size > 1:
            for value in state.values():
                dist.broadcast(value, 0)
