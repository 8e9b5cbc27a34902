"""The engine in torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch

from segbatch.crf.engine import FullSizeEngine
from segbatch.crf.kernels import Kernel
from segbatch.crf.torch_mean_field import mean_field


class TorchEngine(FullSizeEngine):
    """Mean field by torch; see ``segbatch.crf.engine.Engine``.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        max_pixels: Images of one size are filtered together, up to so many pixels. This bounds the memory: about
            0.5 KB per pixel plus 30 bytes per pixel and label. By default 2**22 on a GPU and 2**18 on a CPU, where
            more is not faster.
    """

    name = "torch"

    def __init__(self, device: str | torch.device = "auto", max_pixels: int | None = None) -> None:
        self.device = _pick_device(device)
        if max_pixels is None:
            max_pixels = 2**18 if self.device.type == "cpu" else 2**22
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
            raise ValueError(f"max_pixels is {max_pixels!r}; give a whole number of 1 or more")
        self.max_pixels = max_pixels

    def infer(
        self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel], iterations: int
    ) -> np.ndarray:
        """See ``Engine.infer``."""
        return self.infer_batch([image], [unary], kernels, iterations)[0]

    def infer_batch(
        self,
        images: Sequence[np.ndarray | None] | np.ndarray,
        unaries: Sequence[np.ndarray] | np.ndarray,
        kernels: Sequence[Kernel],
        iterations: int,
        threads: int = 1,
    ) -> list[np.ndarray]:
        """See ``Engine.infer_batch``. Also takes arrays (B, H, W, 3) and (B, K, H, W); ``threads`` has no effect.

        Images of one size share a pass. Where their numbers of labels differ (Potts models only), they are padded with
        labels of infinite energy.
        """
        results: list[np.ndarray | None] = [None] * len(unaries)
        # Sorted by size, then by number of labels, which keeps the padding small.
        order = sorted(range(len(unaries)), key=lambda i: (unaries[i].shape[1:], unaries[i].shape[0]))
        for size, members in groupby(order, key=lambda i: unaries[i].shape[1:]):
            todo = list(members)
            step = max(1, self.max_pixels // (size[0] * size[1]))
            for start in range(0, len(todo), step):
                part = todo[start : start + step]
                marginals = self._pass([images[i] for i in part], [unaries[i] for i in part], kernels, iterations)
                for i, q in zip(part, marginals, strict=True):
                    results[i] = q[: len(unaries[i])]
        return [q for q in results if q is not None]

    @torch.no_grad()
    def _pass(
        self,
        images: Sequence[np.ndarray | None],
        unaries: Sequence[np.ndarray],
        kernels: Sequence[Kernel],
        iterations: int,
    ) -> np.ndarray:
        labels, pinned = max(len(u) for u in unaries), self.device.type == "cuda"
        # Page-locked memory: a GPU copies it several times as fast, and torch reuses it.
        shape = (len(unaries), labels, *unaries[0].shape[1:])
        padded = torch.empty(shape, dtype=torch.float32, pin_memory=pinned)
        for row, unary in zip(padded.numpy(), unaries, strict=True):
            row[: len(unary)] = unary
            row[len(unary) :] = np.inf
        colors = [i for i in images if i is not None]
        pixels = torch.from_numpy(np.stack(colors)).to(self.device) if colors else None
        energies = padded.to(self.device, non_blocking=True)
        marginals = mean_field(pixels, energies, kernels, iterations)
        return torch.empty(shape, dtype=torch.float32, pin_memory=pinned).copy_(marginals).numpy()


def _pick_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is {device!r}; give auto, cpu, cuda or cuda:N") from error
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r} but torch sees no CUDA device; give auto or cpu")
    return picked
