"""The baseline of ``pipeline.py``: segmentation with a dense CRF as a short Ray Data script.

    python benchmarks/ray_script.py IMAGES OUTPUT [--model NAME] [--weights NAME] [--prune 0.05]

Standard parts turn photographs into palette PNGs in Parquet: ``read_images``, the network in eager fp32 on one thread,
images of equal size stacked, a softmax of all classes at full size, pydensecrf2, ``write_parquet``; one network worker
and one CRF worker per core. The network comes from ``segbatch.models``, so that masks can be compared: its BatchNorms
are folded and its weights channels-last, so the baseline is faster than with torchvision's own network. The script has
no error rows, no resume and no statistics. ``--prune`` drops classes whose probability is below it at every pixel.
"""

from __future__ import annotations

import argparse
import io
import os
from typing import Any

import numpy as np
import ray

Batch = dict[str, Any]


def objects(values: list[Any]) -> np.ndarray:
    """A column of arrays of different shapes."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


class Network:
    def __init__(self, name: str, weights: str, prune: float) -> None:
        import torch

        from segbatch import models

        torch.set_num_threads(1)
        model: Any = models.build(name, weights=weights, device="cpu")
        self.network, self.multiple, self.stride, self.prune = (
            model.network,
            model.geometry.multiple,
            model.stride,
            prune,
        )
        scale, shift = model.preprocess.affine()
        self.scale, self.shift = (torch.tensor(values).view(1, 3, 1, 1) for values in (scale, shift))

    def __call__(self, batch: Batch) -> Batch:
        images = list(batch["image"])
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(place)
        probabilities: list[Any] = [None] * len(images)
        for places in by_size.values():
            for place, scores in zip(places, self.scores(np.stack([images[p] for p in places])), strict=True):
                probabilities[place] = scores
        kept = [np.flatnonzero(p.max(axis=(1, 2)) >= self.prune) for p in probabilities]
        columns = {"probabilities": [p[k] for p, k in zip(probabilities, kept, strict=True)], "classes": kept}
        return {"path": batch["path"], "image": objects(images), **{k: objects(v) for k, v in columns.items()}}

    def scores(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> softmax float32 (N, C, H, W)."""
        import torch
        from torch.nn import functional as F

        height, width = images.shape[1:3]
        pad = [(0, -side % self.multiple) for side in (height, width)]
        x = np.pad(images, ((0, 0), *pad, (0, 0)), "edge")
        with torch.inference_mode():
            y = self.network(torch.from_numpy(x).permute(0, 3, 1, 2).float() * self.scale + self.shift)
            y = F.interpolate(y, scale_factor=self.stride, mode="bilinear", align_corners=False)
            return y[:, :, :height, :width].softmax(1).numpy()


class Refine:
    def __init__(self, palette: bytes) -> None:
        self.palette = palette

    def __call__(self, batch: Batch) -> Batch:
        rows = zip(batch["image"], batch["probabilities"], batch["classes"], strict=True)
        return {"path": batch["path"], "mask": np.array([self.mask(*row) for row in rows], object)}

    def mask(self, image: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> bytes:
        from PIL import Image
        from pydensecrf.densecrf import DenseCRF2D
        from pydensecrf.utils import unary_from_softmax

        height, width = image.shape[:2]
        labels = np.zeros(height * width, np.int64)
        if len(classes) > 1:
            crf = DenseCRF2D(width, height, len(classes))
            crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
            crf.addPairwiseGaussian(sxy=3, compat=3)
            crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image.copy(), compat=4)
            labels = np.argmax(crf.inference(10), axis=0)
        png = Image.fromarray(classes[labels].astype(np.uint8).reshape(height, width))
        png.putpalette(self.palette)
        data = io.BytesIO()
        png.save(data, "PNG")
        return data.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("output")
    parser.add_argument("--model", default="deeplabv3plus_mobilenet_v2")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--prune", type=float, default=0.0)
    args = parser.parse_args()
    from segbatch import models

    palette = models.describe(args.model, args.weights).labels.palette()
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False)
    pool = {"num_cpus": 0.4, "compute": ray.data.ActorPoolStrategy(size=cores), "batch_size": 8}
    images = ray.data.read_images(args.images, mode="RGB", include_paths=True, ray_remote_args={"num_cpus": 0.2})
    scored = images.map_batches(Network, fn_constructor_args=(args.model, args.weights, args.prune), **pool)
    refined = scored.map_batches(Refine, fn_constructor_args=(palette,), **pool)
    refined.write_parquet(args.output, ray_remote_args={"num_cpus": 0.2})


if __name__ == "__main__":
    main()
