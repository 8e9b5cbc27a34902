"""Measure the CPU time of a network over the number of images per forward pass: ``python benchmarks/batches.py``.

One thread, photographs of 375 x 500; batch sizes alternate, and the fastest repetition counts. ``faults`` are pages of
4 KB per image that the kernel had to clear: glibc returns a block above 32 MiB to the kernel as soon as it is freed, so
that every layer with such an output needs new pages. ``default`` is the batch size without ``--batch-size``. ``equal``
states whether the scores of all sizes are equal to the bit to those of single images.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from crf_inputs import photographs

from segbatch import models
from segbatch.models.runner import TorchModel

NETWORKS = ("deeplabv3plus_mobilenet_v2", "deeplabv3_mobilenet_v3_large:random", "deeplabv3_resnet50:random")
SIZES = (None, 1, 2, 4, 8)
IMAGES = 8


def largest_output(network: torch.nn.Module, x: torch.Tensor) -> float:
    """Return the number of values in the largest output of a module, per pixel of ``x`` (1, 3, H, W)."""
    most = 0

    def watch(module: torch.nn.Module, inputs: object, output: object) -> None:
        nonlocal most
        most = max(most, output.numel()) if isinstance(output, torch.Tensor) else most

    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    network(x)
    for hook in hooks:
        hook.remove()
    return most / x[0, 0].numel()


def measure(name: str, precision: str, images: list[np.ndarray], turns: int) -> None:
    """Print a line for each batch size of ``name`` (``NETWORK`` or ``NETWORK:WEIGHTS``)."""
    network, _, weights = name.partition(":")
    built: dict[int | None, TorchModel] = {}
    for size in SIZES:
        options = {} if size is None else {"batch_size": size}
        built[size] = models.build(  # type: ignore[assignment]
            network, weights=weights or "default", device="cpu", precision=precision, threads=1, **options
        )
        built[size].network = built[None].network
    scores = {size: model.scores(images) for size, model in built.items()}
    equal = all(np.array_equal(a, b) for size in SIZES for a, b in zip(scores[size], scores[1], strict=True))
    with torch.inference_mode():
        values = largest_output(built[None].network, torch.zeros(1, 3, 256, 256))
    print(f"{name}, {precision}: largest output {values:g} values a pixel, equal {equal}")
    best = dict.fromkeys(SIZES, float("inf"))
    faults = dict.fromkeys(SIZES, 0)
    for _ in range(turns):
        for size, model in built.items():
            pages, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
            model.scores(images)
            best[size] = min(best[size], time.process_time() - begun)
            faults[size] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages
    for size in SIZES:
        label = "default" if size is None else f"{size:7d}"
        print(f"  {label} {1e3 * best[size] / IMAGES:7.1f} ms {faults[size] // IMAGES:6d} faults an image", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="NETWORK or NETWORK:WEIGHTS")
    parser.add_argument(
        "--images", type=Path, help="folder of photographs (default: photographs of installed packages)"
    )
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    available = photographs(args.images, (375, 500))
    images = [available[i % len(available)] for i in range(IMAGES)]
    for name in args.networks:
        for precision in args.precision:
            measure(name, precision, images, args.turns)


if __name__ == "__main__":
    main()
