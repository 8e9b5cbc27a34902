"""Compare all dense CRF engines in one run on one core: ``python benchmarks/crf.py --plot crf.png``.

Four tables: synthetic scores (labels x parameters, no pruning), a network's scores of photographs (with the default
pruning), two threads compared with one, and peak memory. Ratios are to pydensecrf in the same run, next to the
agreement with its result. Engines alternate and the fastest repetition counts, so that other work on the machine
affects all of them equally. ``native/build`` is the construction of the lattice of the bilateral kernel.
"""

# ruff: noqa: E402 - the number of threads is read when NumPy and torch are imported
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crf_inputs import network_scores, photographs, smooth_logits

from segbatch.crf import CRFParams, DenseCRF, _core
from segbatch.crf.native_engine import NativeEngine, native_kernels
from segbatch.crf.params import default_prune

LABELS = (2, 4, 8, 16, 21, 64)
THETAS = ((67.0, 3.0), (80.0, 13.0), (121.0, 5.0), (50.0, 3.0))
SIZE = (375, 500)
Row = dict[str, Any]


def fastest(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the seconds of each function, the minimum of ``repeats`` repetitions."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def synthetic(image: np.ndarray, labels: int, theta: tuple[float, float], engines: Sequence[str], repeats: int) -> Row:
    """Return the seconds of each engine and of the lattice, and the agreement, on one image without pruning."""
    params = CRFParams(theta_alpha=theta[0], theta_beta=theta[1], prune=0)
    unary, kernels = -smooth_logits(labels, *SIZE), params.kernels()
    crfs = {name: DenseCRF(params, engine=name) for name in engines}
    reference = crfs["pydensecrf"].refine(image, unary=unary)
    ours = crfs["native"].refine(image, unary=unary)
    works: dict[str, Callable[[], object]] = {
        name: lambda crf=crf: crf.engine.infer(image, unary, kernels, params.iterations)  # type: ignore[misc]
        for name, crf in crfs.items()
    }
    bilateral = native_kernels(kernels)[0]
    works["build"] = lambda: _core.build_lattice(image, *SIZE, bilateral)
    seconds = fastest(works, repeats)
    return {
        "labels": labels,
        "theta": theta,
        "seconds": seconds,
        "ratio": seconds["pydensecrf"] / seconds["native"],
        "equal": float((ours.argmax(0) == reference.argmax(0)).mean()),
        "largest": float(np.abs(ours - reference).max()),
    }


def real(images: list[np.ndarray], theta: tuple[float, float], repeats: int) -> Row:
    """Compare pydensecrf on all labels at full size with the native engine on the kept labels of a network's scores."""
    params = CRFParams(theta_alpha=theta[0], theta_beta=theta[1], prune=default_prune(21))
    native, reference = DenseCRF(params), DenseCRF(params, engine="pydensecrf")
    totals = {"pydensecrf": 0.0, "refine": 0.0, "refine_coarse": 0.0}
    equal, equal_coarse, pixels, kept = 0.0, 0.0, 0, []
    for image, (coarse, stride) in zip(images, network_scores(images), strict=True):
        size = image.shape[:2]
        full = _core.upsample(coarse, *size, stride)
        kernels = params.kernels()
        works: dict[str, Callable[[], object]] = {
            "pydensecrf": lambda: reference.engine.infer(image, -full, kernels, 10),  # noqa: B023
            "refine": lambda: native.refine(image, logits=full),  # noqa: B023
            "refine_coarse": lambda: native.refine_coarse(image, coarse, size, stride),  # noqa: B023
        }
        for name, seconds in fastest(works, repeats).items():
            totals[name] += seconds
        expected = reference.engine.infer(image, -full, kernels, 10).argmax(0)
        pruned = native.refine(image, logits=full)
        kept.append(int(pruned.any(axis=(1, 2)).sum()))
        equal += float((pruned.argmax(0) == expected).sum())
        equal_coarse += float((native.refine_coarse(image, coarse, size, stride)[0] == expected).sum())
        pixels += expected.size
    return {
        "theta": theta,
        "prune": params.prune,
        "images": len(images),
        "labels_kept": float(np.mean(kept)),
        "seconds": {name: total / len(images) for name, total in totals.items()},
        "ratio": totals["pydensecrf"] / totals["refine"],
        "ratio_coarse": totals["pydensecrf"] / totals["refine_coarse"],
        "equal": equal / pixels,
        "equal_coarse": equal_coarse / pixels,
    }


def threads(image: np.ndarray, labels: int, repeats: int) -> Row:
    """Compare one thread with two on 16 images, so that the last images, on one thread alone, matter little."""
    unaries, images = [-smooth_logits(labels, *SIZE)] * 16, [image] * 16
    kernels, engine = CRFParams().kernels(), NativeEngine()
    works: dict[str, Callable[[], object]] = {
        str(count): lambda count=count: engine.infer_batch(images, unaries, kernels, 10, count)  # type: ignore[misc]
        for count in (1, 2)
    }
    seconds = fastest(works, repeats)
    return {"labels": labels, "seconds": seconds, "ratio": seconds["1"] / seconds["2"]}


# ru_maxrss would start with the memory of the parent when it forked.
_PEAK = """
import sys
import numpy as np
from segbatch.crf import CRFParams, DenseCRF
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
params = CRFParams(prune=0)
image, unary = (np.load(path) for path in sys.argv[2:])
engine = DenseCRF(params, engine=sys.argv[1]).engine
small = image[:8, :8].copy(), unary[:, :8, :8].copy()
engine.infer(*small, params.kernels(), 1)
before = peak()
engine.infer(image, unary, params.kernels(), 10)
print((peak() - before) / 1024)
"""


def peak_memory(image: np.ndarray, engines: Sequence[str], labels: int) -> dict[str, float]:
    """Return the MiB that one inference adds to the peak of a new process, including its result (Linux only)."""
    if not Path("/proc/self/status").exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("image.npy", "unary.npy")]
        for path, array in zip(paths, (image, -smooth_logits(labels, *SIZE)), strict=True):
            np.save(path, array)
        peaks = {}
        for engine in engines:
            command = [sys.executable, "-c", _PEAK, engine, *paths]
            peaks[engine] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return peaks


def plot(report: Row, path: Path) -> None:
    """Plot seconds per image over the number of labels, with one axis per pair of parameters."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = report["synthetic"]
    thetas = list(dict.fromkeys(tuple(row["theta"]) for row in rows))
    figure, axes = plt.subplots(1, len(thetas), figsize=(3.4 * len(thetas), 3.2), sharey=True, squeeze=False)
    for axis, theta in zip(axes[0], thetas, strict=True):
        of_theta = [row for row in rows if tuple(row["theta"]) == theta]
        for name in report["engines"]:
            points = [(row["labels"], 1e3 * row["seconds"][name]) for row in of_theta]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
        axis.set(title=f"theta {theta[0]:g} / {theta[1]:g}", xlabel="labels", xscale="log", yscale="log")
        axis.set_xticks([row["labels"] for row in of_theta], [str(row["labels"]) for row in of_theta])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("ms an image, one core")
    axes[0][0].legend(frameon=False)
    figure.suptitle(f"Dense CRF, {SIZE[0]} x {SIZE[1]}, 10 iterations, nothing pruned")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs for the table of real scores")
    parser.add_argument("--limit", type=int, default=16, help="maximum number of photographs")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each engine")
    parser.add_argument("--quick", action="store_true", help="fewer labels, parameters and repetitions; no torch")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--plot", type=Path, help="write a plot to this PNG")
    args = parser.parse_args()
    labels, thetas, repeats = LABELS, THETAS, args.repeats
    engines = ["pydensecrf", "native", "torch"]
    if args.quick:
        labels, thetas, repeats, engines = (4, 21), THETAS[:2], 2, engines[:2]
    else:
        import torch

        torch.set_num_threads(1)
    image = photographs(None, SIZE)[0]
    report: Row = {"size": SIZE, "isa": _core.isa_names()[0], "engines": engines, "synthetic": []}

    print(f"{SIZE[0]} x {SIZE[1]}, 10 iterations, one core ({report['isa']}); milliseconds per image\n")
    print("synthetic scores, nothing pruned")
    print(f"{'theta':>8} {'labels':>6}" + "".join(f"{name:>12}" for name in engines), end="")
    print(f"{'build':>8} {'ratio':>6} {'equal':>10} {'max|dQ|':>8}")
    for theta in thetas:
        for count in labels:
            row = synthetic(image, count, theta, engines, repeats)
            report["synthetic"].append(row)
            print(f"{theta[0]:g}/{theta[1]:g}".rjust(8) + f"{count:7d}", end="")
            print("".join(f"{1e3 * row['seconds'][name]:12.1f}" for name in engines), end="")
            print(
                f"{1e3 * row['seconds']['build']:8.1f} {row['ratio']:5.2f}x {row['equal']:10.4%} {row['largest']:8.1e}"
            )

    images = photographs(args.images, None)[: 4 if args.quick else args.limit]
    report["real"] = [real(images, theta, repeats) for theta in thetas]
    prune = report["real"][0]["prune"]
    print(f"\nthe built-in network's scores of {len(images)} photographs, labels below {prune:g} everywhere pruned")
    print("   theta  kept  pydensecrf   refine  coarse     ratio of either       equal of either")
    for row in report["real"]:
        s = row["seconds"]
        print(f"{row['theta'][0]:g}/{row['theta'][1]:g}".rjust(8) + f"{row['labels_kept']:6.1f}", end="")
        print(f"{1e3 * s['pydensecrf']:12.1f}{1e3 * s['refine']:9.1f}{1e3 * s['refine_coarse']:8.1f}", end="")
        print(f"{row['ratio']:9.2f}x{row['ratio_coarse']:9.2f}x{row['equal']:11.4%}{row['equal_coarse']:11.4%}")

    report["threads"] = [threads(image, count, repeats) for count in (4, 21)]
    print(
        "\ntwo threads against one: " + ", ".join(f"{r['labels']} labels {r['ratio']:.2f}x" for r in report["threads"])
    )
    report["peak_mib"] = peak_memory(image, engines, 21)
    print("peak memory, 21 labels: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in report["peak_mib"].items()))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    if args.plot:
        plot(report, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
