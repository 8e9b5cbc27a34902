"""The processes that share one training, by torch.distributed."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


class ProcessGroup:
    """The initialized default process group (gloo or nccl), or one process if there is none.

    In a group, every method is collective: all processes must call it.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    def __init__(self) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the output."""
        return self.rank == 0

    def sum_gradients(self, network: nn.Module) -> None:
        """Replace the gradients of each process by their sum over all, in one all-reduce."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, computed in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def sum_counts(self, counts: np.ndarray, device: torch.device) -> np.ndarray:
        """Return the sum of an int64 array over all processes."""
        return self.sum(torch.from_numpy(counts).to(device)).cpu().numpy()

    def broadcast(self, state: dict[str, Tensor]) -> None:
        """Overwrite tensors by those of the main process: batch-normalization statistics differ until then."""
        if self.size > 1:
            for value in state.values():
                dist.broadcast(value, 0)
