"""Run any network over images of mixed sizes: windows, batches, precision, memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segbatch.errors import ModelError, NetworkError, RecordFailure, SpecError
from segbatch.labels import LabelSet
from segbatch.models.bf16 import cpu_supports_bf16
from segbatch.models.fold import fold_batch_norms
from segbatch.models.info import BATCH_SIZE
from segbatch.models.tiles import Geometry, Window
from segbatch.models.weights import Preprocess

logger = logging.getLogger(__name__)

# Pixels of the images that ``batch_size`` counts. A batch holds fewer of larger images.
_NOMINAL_PIXELS = 512 * 512
# glibc returns a block above 32 MiB to the kernel as soon as it is freed, so that every layer with a larger output
# waits for pages to be cleared: per image, a batch of 8 took the built-in network 1.8 times as long in fp32 as a batch
# of one (benchmarks/batches.py). A constant and not the size of a cache, so that batches are the same on every machine.
_CPU_OUTPUT_BYTES = 32 * 2**20
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "STATUS_ALLOC_FAILED",
)


@dataclass(frozen=True)
class _WindowTask:
    """One window of one of the images."""

    image: int
    window: Window


class TorchModel:
    """A network in eval mode on its device; implements ``segbatch.protocols.Model``.

    The scores of an image do not depend on its batch, up to rounding: the image is padded to a size that follows from
    its own size alone. Memory is bounded: a batch holds up to ``batch_size`` images of 512 x 512 pixels, fewer larger
    ones, and no forward pass sees an image of more than ``geometry.tile_pixels``. In a tiled image, layers that pool
    over the whole image (DeepLab's image-level features) pool over the window.

    Args:
        network: Maps normalized float (N, 3, H, W) to logits (N, C, H / stride, W / stride), for the sides that
            ``geometry`` allows. The center of cell (i, j) is at pixel
            ``((i + 0.5) * stride - 0.5, (j + 0.5) * stride - 0.5)``.
        precision: ``fp32``, or ``bf16`` for autocast: parameters stay float32, and a network may disable autocast
            where it needs float32. Without hardware support (``supports_bf16``) bf16 is correct but slow.
        batch_size: By default 8; on a CPU then only while the largest output of a layer stays within 32 MiB.

    Raises:
        SpecError: ``device``, ``precision`` or ``batch_size`` is invalid.
        ModelError: The device is not available.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        labels: LabelSet,
        geometry: Geometry,
        preprocess: Preprocess,
        *,
        digest: str = "",
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int | None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise SpecError(f"precision {precision!r} is unknown; give fp32 or bf16")
        if batch_size is not None and batch_size < 1:
            raise SpecError(f"batch_size must be at least 1; got {batch_size}")
        self.name, self.labels, self.geometry, self.preprocess = name, labels, geometry, preprocess
        self.digest, self.precision, self.batch_size = digest, precision, batch_size or BATCH_SIZE
        self.device = resolve_device(device)
        if precision == "bf16" and not supports_bf16(device):
            logger.warning("%s: bf16 is slower than fp32 on %s, which does not support it natively", name, self.device)
        network = fold_batch_norms(network.eval().requires_grad_(False))
        # NHWC is the layout of images, and the fastest one for convolutions on CPUs and GPUs.
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        scale, shift = preprocess.affine()
        self._scale = torch.tensor(scale, device=self.device).view(1, 3, 1, 1)
        self._shift = torch.tensor(shift, device=self.device).view(1, 3, 1, 1)
        self._batch_pixels = self.batch_size * _NOMINAL_PIXELS
        if batch_size is None and self.device.type == "cpu":
            self._batch_pixels = _CPU_OUTPUT_BYTES // (geometry.activations * (2 if precision == "bf16" else 4))

    @property
    def stride(self) -> int:
        return self.geometry.stride

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.names

    @torch.inference_mode()
    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        """Score images uint8 (H, W, 3) RGB of any sizes.

        Scores that are not finite are returned unchanged. When memory runs out, the batch is halved and tried again.

        Returns:
            Logits of each image, float32 (C, ceil(H / stride), ceil(W / stride)).

        Raises:
            RecordFailure: An image does not fit into memory alone (segment, OutOfMemory). The message does not say
                which one: score the images one by one.
        """
        tasks: list[_WindowTask] = []
        out: list[np.ndarray] = []
        for index, image in enumerate(images):
            _check(image, index)
            out.append(np.empty((len(self.labels), *self.geometry.grid(*image.shape[:2])), np.float32))
            tasks += [_WindowTask(index, window) for window in self.geometry.windows(*image.shape[:2])]
        pending: deque[tuple[list[_WindowTask], Tensor, torch.cuda.Event | None]] = deque()
        for batch in self._batches(tasks):
            pending += self._run(batch, images)
            # One batch stays in flight: a GPU computes it while this thread fills the next.
            while len(pending) > 1:
                _collect(*pending.popleft(), out)
        while pending:
            _collect(*pending.popleft(), out)
        return out

    def _batches(self, tasks: Sequence[_WindowTask]) -> Iterator[list[_WindowTask]]:
        """Yield batches of windows of equal size, in the order of the images."""
        buckets: dict[tuple[int, int], list[_WindowTask]] = {}
        for task in tasks:
            buckets.setdefault((task.window.height, task.window.width), []).append(task)
        for (height, width), bucket in buckets.items():
            start = 0
            while start < len(bucket):
                # Read for each batch: running out of memory lowers ``_batch_pixels``.
                count = min(self.batch_size, max(1, self._batch_pixels // (height * width)))
                yield bucket[start : start + count]
                start += count

    def _run(
        self, tasks: list[_WindowTask], images: Sequence[np.ndarray]
    ) -> list[tuple[list[_WindowTask], Tensor, torch.cuda.Event | None]]:
        """Return the scores of the windows, on their way to the host; in several parts if they do not fit."""
        try:
            return [(tasks, *self._forward(self._fill(tasks, images)))]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, because the traceback holds the tensors of the failed attempt.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        window = tasks[0].window
        if len(tasks) == 1:
            height, width = images[tasks[0].image].shape[:2]
            raise RecordFailure(
                "segment",
                "OutOfMemory",
                f"{self.name} ran out of memory on {self.device} for one image of {height} x {width} pixels "
                f"(window {window.height} x {window.width}); give each worker more memory: "
                "fewer segment_actors, a larger num_gpus where they share a GPU, or larger machines",
            )
        half = len(tasks) // 2
        self._batch_pixels = half * window.height * window.width
        logger.warning(
            "%s: %d images of %d x %d do not fit on %s; the batch is now %d",
            *(self.name, len(tasks), window.height, window.width, self.device, half),
        )
        return self._run(tasks[:half], images) + self._run(tasks[half:], images)

    def _fill(self, tasks: Sequence[_WindowTask], images: Sequence[np.ndarray]) -> Tensor:
        """Return the padded windows, uint8 (N, H, W, 3) on the host, in page-locked memory for a GPU."""
        shape = (len(tasks), tasks[0].window.height, tasks[0].window.width, 3)
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for target, task in zip(batch.numpy(), tasks, strict=True):
            window = task.window
            source = images[task.image][window.top :, window.left :][: window.height, : window.width]
            height, width = source.shape[:2]
            target[:height, :width] = source
            if self.geometry.pad == "mean":
                target[height:] = target[:, width:] = self.preprocess.mean_color()
            else:
                target[:height, width:] = source[:, -1:]
                target[height:] = target[height - 1]
        return batch

    def _forward(self, batch: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Return logits float32 (N, C, h, w) on the host, and the event that completes them; None if complete."""
        x = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        if self.preprocess.bgr:
            x = x.flip(1)
        x = x.float().mul_(self._scale).add_(self._shift)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            y = self.network(x)
        n, _, height, width = x.shape
        expected = (n, len(self.labels), height // self.stride, width // self.stride)
        if tuple(y.shape) != expected:
            raise NetworkError(f"{self.name}: the network gave scores of shape {tuple(y.shape)}, expected {expected}")
        if self.device.type != "cuda":
            return y.float().cpu(), None
        host = y.float().to("cpu", non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return host, event


def _collect(tasks: list[_WindowTask], host: Tensor, event: torch.cuda.Event | None, out: list[np.ndarray]) -> None:
    if event is not None:
        event.synchronize()
    for values, task in zip(host.numpy(), tasks, strict=True):
        window = task.window
        out[task.image][:, window.rows, window.cols] = values[:, window.inner_rows, window.inner_cols]


def _check(image: np.ndarray, index: int) -> None:
    ok = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not ok or 0 in image.shape:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image {index} is {given}; give uint8 (H, W, 3) RGB with at least one pixel")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports that the memory of the host or of a device is exhausted."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def resolve_device(device: str) -> torch.device:
    """Return the device of ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        SpecError: The name is not a supported device.
        ModelError: This machine does not have the device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as e:
        raise SpecError(f"device {device!r} is unknown; give auto, cpu, cuda or cuda:N") from e
    if chosen.type not in ("cpu", "cuda"):
        raise SpecError(f"device {device!r} is not supported; give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} is not available: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; give device cpu or auto, or install a CUDA build of torch and check nvidia-smi"
        )
    return chosen


def supports_bf16(device: str = "auto") -> bool:
    """Whether the device supports bfloat16 natively, so that ``precision="bf16"`` is faster than fp32."""
    if resolve_device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_supports_bf16()
