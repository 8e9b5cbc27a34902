"""Mean IoU and pixel accuracy of a network on a folder of images and label PNGs, before and after the dense CRF.

    python benchmarks/accuracy.py ../camvid/val --weights camvid --ignore 11

The folder holds ``images/`` and ``labels/``, paired by stem; pixels of ``--ignore`` do not count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from segbatch import models, refiners
from segbatch.metrics.confusion import Confusion
from segbatch.runtime.stages import coarse_scores
from segbatch.spec import JobSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="deeplabv3plus_mobilenet_v2")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--ignore", type=int, default=255)
    parser.add_argument("--crf", action="store_true", help="also after the dense CRF with the default parameters")
    args = parser.parse_args()

    model = models.build(args.model, weights=args.weights, precision=args.precision)
    names = ["none", "densecrf"] if args.crf else ["none"]
    stages = {n: refiners.build(JobSpec.create(inputs=["unused"], refiner=n)) for n in names}
    confusion = {n: Confusion(len(model.labels), args.ignore) for n in names}
    labels = {p.stem: p for p in (args.folder / "labels").iterdir()}
    paths = sorted((args.folder / "images").iterdir())
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        truth = np.asarray(Image.open(labels[path.stem])).astype(np.int64)
        (logits,) = model.scores([image])
        scores = coarse_scores(logits, *image.shape[:2], model.stride, 1e-3)
        for name, refiner in stages.items():
            mask, _ = refiner.refine(image, scores)
            confusion[name].add(truth, mask)
    print(f"{model.name} {args.weights} {args.precision}, {len(paths)} images")
    for name, matrix in confusion.items():
        print(f"{name:9} mean IoU {matrix.mean_iou:.3f}, pixel accuracy {matrix.pixel_accuracy:.3f}")
        for label, value in zip(model.labels.names, matrix.iou, strict=True):
            print(f"    {label:14} {value:.3f}")


if __name__ == "__main__":
    main()
