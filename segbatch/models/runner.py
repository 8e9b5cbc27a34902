"""Runs a network over images of mixed sizes: windows, batches, precision, memory. Knows no architecture."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segbatch.errors import ModelError, NetworkError, RecordFailure, SpecError
from segbatch.labels import LabelSet
from segbatch.models.fold import fold_batch_norms
from segbatch.models.info import BATCH_SIZE
from segbatch.models.tiles import Geometry, Window
from segbatch.models.weights import Preprocess

logger = logging.getLogger(__name__)

# The size of image that ``batch_size`` counts: larger images go fewer to a batch.
_NOMINAL_PIXELS = 512 * 512
# glibc returns a block above 32 MiB to the kernel as soon as it is freed, so every layer with a larger output waits
# for pages to be cleared: 8 photographs at once took the built-in network 1.8 times as long in fp32 as one at a time
# (benchmarks/batches.py). A constant, not the size of a cache: batches are the same on every machine.
_CPU_OUTPUT_BYTES = 32 * 2**20
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "STATUS_ALLOC_FAILED",
)


@dataclass(frozen=True)
class _Job:
    """One window of one of the images."""

    image: int
    window: Window


class TorchModel:
    """A network in eval mode on its device; implements ``segbatch.protocols.Model``.

    ``network`` maps normalized float (N, 3, H, W) to logits (N, C, H / stride, W / stride), for sides that
    ``geometry`` allows, with the center of cell (i, j) at pixel ((i + 0.5) * stride - 0.5, ...).

    The scores of an image depend on that image alone, up to rounding: it is padded to a size that follows
    from its own size, and nothing else in its batch reaches it. Memory is bounded: a batch holds up to
    ``batch_size`` images of 512 x 512 pixels, fewer larger ones, and no forward pass sees an image of more
    than ``geometry.tile_pixels``. Where ``batch_size`` is not given it is 8, and on a CPU windows share a batch
    only while the largest output of a layer stays within 32 MiB. Where the network pools over the whole image
    (DeepLab's image-level features), a window of a tiled image pools over the window.

    ``precision``: ``fp32``, or ``bf16`` for autocast, in which parameters stay float32 and a network may turn
    autocast off for what needs float32. Where the hardware lacks bf16 (``supports_bf16``) it is right but
    slow.
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
            logger.warning("%s: %s has no bf16 arithmetic, so bf16 is slower than fp32 here", name, self.device)
        network = fold_batch_norms(network.eval().requires_grad_(False))
        # NHWC is what images are stored as, and what the CPU and the GPU convolve fastest.
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
        """Images uint8 (H, W, 3) RGB of any sizes -> float32 (C, ceil(H/stride), ceil(W/stride)) logits each.

        Scores that are not finite are returned as they are. When memory runs out the batch is halved and
        tried again; an image that does not fit alone raises ``RecordFailure`` (segment, OutOfMemory): call
        one image at a time to learn which.
        """
        jobs: list[_Job] = []
        out: list[np.ndarray] = []
        for index, image in enumerate(images):
            _check(image, index)
            out.append(np.empty((len(self.labels), *self.geometry.grid(*image.shape[:2])), np.float32))
            jobs += [_Job(index, window) for window in self.geometry.windows(*image.shape[:2])]
        pending: deque[tuple[list[_Job], Tensor, torch.cuda.Event | None]] = deque()
        for batch in self._batches(jobs):
            pending += self._run(batch, images)
            # One batch stays in flight, so that a GPU computes while this thread fills the next.
            while len(pending) > 1:
                _collect(*pending.popleft(), out)
        while pending:
            _collect(*pending.popleft(), out)
        return out

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
        """Windows of equal size together, in the order of the images, as many as memory was meant for."""
        buckets: dict[tuple[int, int], list[_Job]] = {}
        for job in jobs:
            buckets.setdefault((job.window.height, job.window.width), []).append(job)
        for (height, width), bucket in buckets.items():
            start = 0
            while start < len(bucket):
                # Asked each time: running out of memory lowers it.
                count = min(self.batch_size, max(1, self._batch_pixels // (height * width)))
                yield bucket[start : start + count]
                start += count

    def _run(
        self, jobs: list[_Job], images: Sequence[np.ndarray]
    ) -> list[tuple[list[_Job], Tensor, torch.cuda.Event | None]]:
        """Scores of the windows, on their way to the host; in several parts if memory does not allow one."""
        try:
            return [(jobs, *self._forward(self._fill(jobs, images)))]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler: the traceback held the tensors of the failed attempt.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        window = jobs[0].window
        if len(jobs) == 1:
            height, width = images[jobs[0].image].shape[:2]
            raise RecordFailure(
                "segment",
                "OutOfMemory",
                f"{self.name} ran out of memory on {self.device} for one image of {height} x {width} pixels "
                f"(window {window.height} x {window.width}); give each worker more memory: "
                "fewer segment_actors, a larger num_gpus where they share a GPU, or larger machines",
            )
        half = len(jobs) // 2
        self._batch_pixels = half * window.height * window.width
        logger.warning(
            "%s: %d images of %d x %d do not fit on %s; going on with %d at a time",
            *(self.name, len(jobs), window.height, window.width, self.device, half),
        )
        return self._run(jobs[:half], images) + self._run(jobs[half:], images)

    def _fill(self, jobs: Sequence[_Job], images: Sequence[np.ndarray]) -> Tensor:
        """The pixels of the windows, padded: uint8 (N, H, W, 3) on the host, page-locked for a GPU."""
        shape = (len(jobs), jobs[0].window.height, jobs[0].window.width, 3)
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for target, job in zip(batch.numpy(), jobs, strict=True):
            window = job.window
            source = images[job.image][window.top :, window.left :][: window.height, : window.width]
            height, width = source.shape[:2]
            target[:height, :width] = source
            if self.geometry.pad == "mean":
                target[height:] = target[:, width:] = self.preprocess.mean_color()
            else:
                target[:height, width:] = source[:, -1:]
                target[height:] = target[height - 1]
        return batch

    def _forward(self, batch: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Logits float32 (N, C, h, w) on the host, and the event after which they are there (None: now)."""
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


def _collect(jobs: list[_Job], host: Tensor, event: torch.cuda.Event | None, out: list[np.ndarray]) -> None:
    if event is not None:
        event.synchronize()
    for values, job in zip(host.numpy(), jobs, strict=True):
        window = job.window
        out[job.image][:, window.rows, window.cols] = values[:, window.inner_rows, window.inner_cols]


def _check(image: np.ndarray, index: int) -> None:
    ok = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not ok or 0 in image.shape:
        met = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image {index} is {met}; give uint8 (H, W, 3) RGB with at least one pixel")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def resolve_device(device: str) -> torch.device:
    """The device behind ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``, checked."""
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
            f"device {device!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; give device cpu or auto, or install a CUDA build of torch and check nvidia-smi"
        )
    return chosen


def supports_bf16(device: str = "auto") -> bool:
    """Whether the device computes in bfloat16 natively, so that ``precision="bf16"`` is faster than fp32."""
    if resolve_device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features")))
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(next(lines, "").split()))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
