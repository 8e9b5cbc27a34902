"""Measure images per second of the torch dense CRF on a GPU: ``python benchmarks/gpu.py --json gpu.json``.

Each number of labels has two rates: ``resident`` with images, energies and marginals on the device, as in a GPU actor
that also runs the network; ``host`` from NumPy arrays to NumPy arrays. The photographs are scikit-image's, the energies
smooth random fields; ``--kept`` is the typical number of labels that pruning keeps of ``--labels``. The results are
compared with those of pydensecrf before the measurement.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage import data

from segbatch.crf import CRFParams, DenseCRF
from segbatch.crf.torch_engine import TorchEngine
from segbatch.crf.torch_filter import build_filter
from segbatch.crf.torch_mean_field import mean_field


def photographs(count: int, height: int, width: int) -> np.ndarray:
    """Photographs uint8 (count, height, width, 3), shifted copies of three, mirrored to the size."""
    sources = [data.astronaut(), data.coffee(), data.chelsea()]
    images = []
    for i in range(count):
        source = np.roll(sources[i % 3], (17 * i, 29 * i), (0, 1))
        tall, wide = max(0, height - source.shape[0]), max(0, width - source.shape[1])
        images.append(np.pad(source, ((0, tall), (0, wide), (0, 0)), "symmetric")[:height, :width])
    return np.stack(images)


def energies(count: int, labels: int, height: int, width: int) -> np.ndarray:
    """Unary energies float32 (count, labels, height, width), as smooth as a network's of stride 8."""
    coarse = np.random.default_rng(0).normal(size=(count, labels, height // 8 + 2, width // 8 + 2)) * 2
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear")
    return fine.numpy().astype(np.float32)


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median wall time of ``work`` after one warm-up run, including the device's queue."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(args: argparse.Namespace, params: CRFParams, labels: int, device: torch.device) -> dict[str, object]:
    """One line of the table: images per second, the lattice's share, memory, distance to pydensecrf."""
    size = (args.height, args.width)
    images, unary = photographs(args.batch, *size), energies(args.batch, labels, *size)
    kernels = params.kernels()
    engine = TorchEngine(device)
    pixels, fields = torch.from_numpy(images).to(device), torch.from_numpy(unary).to(device)

    reference = DenseCRF(params, engine="pydensecrf").refine(images[0], unary=unary[0])
    ours = engine.infer(images[0], unary[0], kernels, params.iterations)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.no_grad():
        resident = seconds(lambda: mean_field(pixels, fields, kernels, params.iterations), device, args.repeats)
        build = seconds(
            lambda: [build_filter(k, pixels, (args.batch, *size), device, torch.float32) for k in kernels],
            device,
            args.repeats,
        )
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    host = seconds(lambda: engine.infer_batch(images, unary, kernels, params.iterations), device, args.repeats)
    return {
        "labels": labels,
        "theta_alpha": params.theta_alpha,
        "theta_beta": params.theta_beta,
        "resident_images_per_s": args.batch / resident,
        "host_images_per_s": args.batch / host,
        "lattice_share": build / resident,
        "peak_mib_per_image": peak / args.batch / 2**20 if peak else None,
        "max_abs_difference": float(np.abs(ours - reference).max()),
        "equal_argmax": float((ours.argmax(0) == reference.argmax(0)).mean()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--labels", type=int, default=21, help="number of labels of the network")
    parser.add_argument("--kept", type=int, default=4, help="number of labels that pruning keeps")
    parser.add_argument("--batch", type=int, default=16, help="images per batch")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the script")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    args = parser.parse_args()
    try:
        device = TorchEngine(args.device).device
    except ValueError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {args.batch} images of {args.height} x {args.width}")
    print("labels  theta    resident img/s  host img/s  lattice  MiB/img   max|dQ|   equal")
    rows = []
    for alpha, beta in ((67.0, 3.0), (80.0, 13.0)):
        params = CRFParams(theta_alpha=alpha, theta_beta=beta, iterations=args.iterations, prune=0)
        for labels in (args.labels, args.kept):
            row = measure(args, params, labels, device)
            rows.append(row)
            memory = row["peak_mib_per_image"]
            print(
                f"{labels:6d}  {alpha:.0f}/{beta:<4.0f}  {row['resident_images_per_s']:14.1f}"
                f"  {row['host_images_per_s']:10.1f}  {row['lattice_share']:7.0%}"
                f"  {'-' if memory is None else format(memory, '.0f'):>7}"
                f"  {row['max_abs_difference']:8.1e}  {row['equal_argmax']:.4%}"
            )
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        report = {"device": name, "torch": torch.__version__, "settings": settings, "results": rows}
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
