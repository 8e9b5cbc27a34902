"""Measure a network's accuracy, calibration and time on labeled images with each refiner, and fit its temperature.

    python benchmarks/accuracy.py ../voc_val --weights voc
    python benchmarks/accuracy.py ../camvid/val --weights camvid --ignore 11 --folds 5

The folder contains ``images/`` and ``labels/``, paired by stem; pixels with the value of ``--ignore`` are ignored.
Refiners run with the defaults of a job. Each has a row for ``confidence`` (the network's probability of the final
class, its logits divided by the temperature) and one for ``marginal`` (the refiner's own probability). ECE is over all
labeled pixels in 15 bins, Spearman over images. ``--folds K`` splits the images, in order of their names, into K parts,
fits a temperature (maximum likelihood of the labels at random pixels) to all parts but one, and reports the confidence
of each image with the temperature that was fitted without it. The last line has the temperature fitted to all images.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from segbatch import models, refiners
from segbatch.crf.params import default_prune
from segbatch.evaluation import calibration
from segbatch.evaluation.bootstrap import BootstrapAccumulator, count_image
from segbatch.evaluation.ranking import spearman
from segbatch.protocols import Model, Refiner
from segbatch.records import Scores
from segbatch.refiners.entry import RefinerRequest
from segbatch.refiners.probability import label_probability
from segbatch.refiners.upsample import upsample
from segbatch.stages.scoring import coarse_scores

_PIXELS_AN_IMAGE = 2000


@dataclass
class Frame:
    """An image uint8 (H, W, 3), its label int16 (H, W), ignored pixels negative, and the network's logits (C, h, w)."""

    image: np.ndarray
    truth: np.ndarray
    logits: np.ndarray


@dataclass
class Calibration:
    """Sums over pixels of one kind of confidence, and the mean confidence and accuracy of each image."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros((3, calibration.BINS)))
    means: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def add(self, confidence: np.ndarray, right: np.ndarray, known: np.ndarray) -> None:
        self.sums += calibration.binned(confidence[known], right[known])
        self.means.append(float(confidence.mean()))
        self.accuracies.append(float(right[known].mean()))

    def __str__(self) -> str:
        weights = np.ones((1, len(self.means)))
        rank = spearman(np.array(self.means), np.array(self.accuracies), weights)[0]
        return (
            f"mean {calibration.mean_confidence(self.sums):.3f}, |mean - accuracy| "
            f"{calibration.confidence_gap(self.sums):.4f}, ECE "
            f"{calibration.expected_calibration_error(self.sums):.4f}, Spearman {rank:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="deeplabv3plus_mobilenet_v2")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--ignore", type=int, default=255)
    parser.add_argument("--refiners", nargs="+", default=["none", "densecrf"])
    parser.add_argument("--temperature", type=float, help="temperature (default: that of the weights)")
    parser.add_argument(
        "--folds", type=int, default=0, help="number of folds; fits the temperature and reports each image out of fold"
    )
    parser.add_argument("--classes", action="store_true", help="print the IoU of each class")
    args = parser.parse_args()

    model = models.build(args.model, weights=args.weights, precision=args.precision)
    info = models.describe(args.model, args.weights)
    frames, seconds = read(model, args.folder, args.ignore)
    temperatures = [args.temperature or info.temperature] * len(frames)
    if args.folds:
        temperatures = fit_folds(frames, model.stride, args.folds)
    print(
        f"{model.name} {args.weights} {args.precision}, {len(frames)} images; network {1e3 * seconds:.0f} ms per image"
    )
    for name in args.refiners:
        request = refiners.describe(RefinerRequest(name), info).request
        report(name, refiners.build(request), model, frames, temperatures, args.classes)


def read(model: Model, folder: Path, ignore: int) -> tuple[list[Frame], float]:
    """Return all images with their logits, in order of names, and the seconds per image of the network."""
    labels = {path.stem: path for path in (folder / "labels").iterdir()}
    frames, spent = [], 0.0
    for path in sorted((folder / "images").iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"))
        truth = np.asarray(Image.open(labels[path.stem])).astype(np.int16)
        truth[(truth == ignore) | (truth >= len(model.labels))] = -1
        begun = time.perf_counter()
        (logits,) = model.scores([image])
        spent += time.perf_counter() - begun
        frames.append(Frame(image, truth, logits))
    return frames, spent / len(frames)


def report(
    name: str,
    refiner: Refiner,
    model: Model,
    frames: list[Frame],
    temperatures: list[float],
    show_classes: bool,
) -> None:
    classes = len(model.labels)
    accumulator = BootstrapAccumulator(classes, resamples=0, seed=0)
    confidence, marginals = Calibration(), Calibration()
    refining = comparing = 0.0
    for number, (frame, temperature) in enumerate(zip(frames, temperatures, strict=True)):
        scores = coarse_scores(frame.logits, *frame.truth.shape, model.stride, default_prune(classes))
        begun = time.perf_counter()
        mask, marginal = refiner.refine(frame.image, scores)
        refined = time.perf_counter()
        probability = label_probability(scores, mask, classes, temperature)
        comparing += time.perf_counter() - refined
        refining += refined - begun
        accumulator.add([str(number)], [count_image(frame.truth, mask, classes)])
        right, known = mask == frame.truth, frame.truth >= 0
        confidence.add(probability, right, known)
        marginals.add(marginal, right, known)
    metrics = {key: value[0] for key, value in accumulator.metrics().items()}
    print(
        f"{name}: mean IoU {metrics['mean_iou']:.4f}, boundary F1 {metrics['boundary_f1']:.4f}, pixel accuracy "
        f"{metrics['pixel_accuracy']:.4f}; refining {1e3 * refining / len(frames):.1f} ms, confidence "
        f"{1e3 * comparing / len(frames):.1f} ms per image"
    )
    print(f"    confidence  {confidence}")
    print(f"    marginal    {marginals}")
    if show_classes:
        for label, value in zip(model.labels.names, metrics["class_iou"], strict=True):
            print(f"    {label:14} {value:.3f}")


def fit_folds(frames: list[Frame], stride: int, folds: int) -> list[float]:
    """Return the temperature for each frame, fitted to the other folds."""
    samples = [sample(frame, stride, seed) for seed, frame in enumerate(frames)]
    everything = range(len(frames))
    temperatures = [0.0] * len(frames)
    for part in np.array_split(everything, folds):
        others = sorted(set(everything) - set(part.tolist()))
        fitted = fit([samples[i] for i in others])
        for i in part:
            temperatures[i] = fitted
    print(f"temperatures of {folds} folds: {', '.join(f'{t:.3f}' for t in dict.fromkeys(temperatures))}")
    print(f"temperature of all {len(frames)} images: {fit(samples):.3f}")
    return temperatures


def sample(frame: Frame, stride: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits float32 (N, C) at full size and labels (N,) of random labeled pixels of a frame."""
    size = frame.truth.shape
    full = upsample(Scores(frame.logits, np.arange(len(frame.logits)), *size, stride))
    at = np.flatnonzero(frame.truth >= 0)
    at = np.random.default_rng(seed).choice(at, min(_PIXELS_AN_IMAGE, len(at)), replace=False)
    return full.reshape(len(full), -1).T[at], frame.truth.ravel()[at]


def fit(samples: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the maximum-likelihood temperature, by bisection: the likelihood is concave in 1 / T."""
    logits, labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    logits = logits - logits.max(axis=1, keepdims=True)
    of_labels = np.take_along_axis(logits, labels[:, None].astype(np.int64), axis=1)[:, 0]
    low, high = 0.1, 10.0
    while high / low > 1.0005:
        middle = (low * high) ** 0.5
        e = np.exp(logits / np.float32(middle))
        expected = (e * logits).sum(axis=1) / e.sum(axis=1)
        # The derivative of the log-likelihood by 1 / T; it falls with 1 / T.
        if (of_labels - expected).mean() > 0:
            high = middle
        else:
            low = middle
    return (low * high) ** 0.5


if __name__ == "__main__":
    main()
