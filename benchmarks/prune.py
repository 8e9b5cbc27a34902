"""Measure how pruning of improbable classes changes masks and time: ``python benchmarks/prune.py``.

The scores of each photograph are refined as in a job (``coarse_scores``, then the dense CRF with DeepLab's parameters)
for several values of ``prune``; the fastest repetition counts. Masks are compared with those of prune 0. The scores are
those of the built-in network for 21 classes, and of 150 classes derived from them: class c is the network's class c
modulo 21 plus smooth noise with a standard deviation in logits of 3 (different variants) or 0.5 (near twins). Flat
scores are logits times 0.4. With ``--labels``, the masks of the network's own scores are also compared with labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from crf_inputs import network_scores, photographs
from PIL import Image

from segbatch.crf import _core
from segbatch.crf.params import CRFSettings
from segbatch.evaluation.bootstrap import BootstrapAccumulator, count_image
from segbatch.labels import IGNORE_INDEX
from segbatch.refiners.densecrf import DenseCRFRefiner
from segbatch.stages.scoring import coarse_scores

CLASSES = 150
Case = tuple[str, np.ndarray]


@dataclass
class Sums:
    """The results of one value of ``prune`` on the photographs of one case."""

    labels: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    equal: list[float] = field(default_factory=list)
    accumulator: BootstrapAccumulator | None = None  # of the comparison with labels


def variants(logits: np.ndarray, spread: float, seed: int) -> np.ndarray:
    """Logits (21, h, w) -> (150, h, w): each class several times, with separate smooth noise."""
    height, width = logits.shape[1:]
    noise = np.random.default_rng(seed).normal(size=(CLASSES, -(-height // 8), -(-width // 8))).astype(np.float32)
    return logits[np.arange(CLASSES) % len(logits)] + spread * _core.upsample(noise, height, width, 8)


def cases(logits: np.ndarray, seed: int) -> Iterator[Case]:
    """The same photograph's scores, from easy to hard."""
    different, twins = variants(logits, 3.0, seed), variants(logits, 0.5, seed)
    yield "21 classes", logits
    yield "21 classes, flat", 0.4 * logits
    yield "150 classes", different
    yield "150 classes, flat", 0.4 * different
    yield "150 classes, twins", twins


def measure(image: np.ndarray, logits: np.ndarray, stride: int, prune: float, repeats: int) -> tuple[np.ndarray, Sums]:
    """The mask, and one photograph's entries of ``Sums``."""
    refiner = DenseCRFRefiner(CRFSettings())
    sums = Sums(seconds=[float("inf")])
    for _ in range(repeats):
        begun = time.perf_counter()
        scores = coarse_scores(logits, *image.shape[:2], stride, prune)
        mask = refiner.refine(image, scores)[0]
        sums.seconds = [min(sums.seconds[0], time.perf_counter() - begun)]
    sums.labels = [len(scores.class_ids)]
    return mask, sums


def report(name: str, by_prune: dict[float, Sums]) -> None:
    print(f"\n{name}\n{'prune':>8}{'labels':>8}{'ms':>8}{'equal pixels':>14}{'worst image':>13}", end="")
    print(f"{'mean IoU':>10}{'boundary F1':>13}" if by_prune[0].accumulator else "")
    for prune, sums in by_prune.items():
        print(f"{prune:8g}{np.mean(sums.labels):8.1f}{1e3 * np.mean(sums.seconds):8.0f}", end="")
        print(f"{np.mean(sums.equal):14.4%}{min(sums.equal):13.3%}", end="")
        if sums.accumulator:
            metrics = sums.accumulator.metrics()
            print(f"{metrics['mean_iou'][0]:10.2%}{metrics['boundary_f1'][0]:13.2%}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images", type=Path, help="folder of photographs (default: photographs of installed packages)"
    )
    parser.add_argument("--labels", type=Path, help="folder of their label images, with VOC's class ids")
    parser.add_argument("--limit", type=int, default=16, help="maximum number of photographs, evenly spread")
    parser.add_argument("--repeats", type=int, default=2, help="repetitions of each value")
    parser.add_argument("--prune", type=float, nargs="+", default=[0, 1e-3, 0.01, 0.02, 0.05])
    parser.add_argument("--cases", type=int, default=5, help="number of cases, the easiest first")
    args = parser.parse_args()
    values = list(dict.fromkeys([0.0, *args.prune]))
    names = sorted(args.images.iterdir()) if args.images else []
    images = photographs(args.images, None)
    chosen = range(0, len(images), max(1, len(images) // args.limit))[: args.limit]
    found: dict[str, dict[float, Sums]] = {}
    for i, (logits, stride) in zip(chosen, network_scores([images[i] for i in chosen]), strict=True):
        truth = None
        if args.labels:
            truth = np.asarray(Image.open(args.labels / f"{names[i].stem}.png")).astype(np.int16)
            truth[truth == IGNORE_INDEX] = -1
        for name, scores in list(cases(logits, i))[: args.cases]:
            by_prune = found.setdefault(name, {value: Sums() for value in values})
            reference: np.ndarray | None = None
            for value, sums in by_prune.items():
                mask, one = measure(images[i], scores, stride, value, args.repeats)
                reference = mask if reference is None else reference
                sums.labels += one.labels
                sums.seconds += one.seconds
                sums.equal.append(float((mask == reference).mean()))
                if truth is not None and scores is logits:
                    sums.accumulator = sums.accumulator or BootstrapAccumulator(len(logits), resamples=0, seed=0)
                    sums.accumulator.add([names[i].stem], [count_image(truth, mask, len(logits))])
    print(f"{len(chosen)} photographs")
    for name, by_prune in found.items():
        report(name, by_prune)


if __name__ == "__main__":
    main()
