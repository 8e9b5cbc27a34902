"""The engine that calls pydensecrf, as a reference for the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segbatch.crf.engine import FullSizeEngine
from segbatch.crf.kernels import Kernel
from segbatch.crf.params import NORMALIZATIONS


class PydensecrfEngine(FullSizeEngine):
    """Mean field by pydensecrf, one image at a time: it holds the GIL."""

    name = "pydensecrf"

    def infer(
        self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel], iterations: int
    ) -> np.ndarray:
        """See ``Engine.infer``.

        Raises:
            ValueError: A matrix of compatibilities is asymmetric; pydensecrf would silently use its symmetric part.
        """
        import pydensecrf.densecrf as dcrf

        labels, height, width = unary.shape
        crf = dcrf.DenseCRF2D(width, height, labels)
        crf.setUnaryEnergy(np.require(unary.reshape(labels, -1), np.float32, ["C", "W"]))
        for kernel in kernels:
            compat = kernel.compat
            if isinstance(compat, np.ndarray) and compat.ndim == 2 and not np.allclose(compat, compat.T):
                raise ValueError("compat is an asymmetric matrix, which pydensecrf cannot apply; use engine='native'")
            # The order of pydensecrf's enumeration, whose names are not exported when Cython 3 builds it.
            options = {"compat": compat, "normalization": NORMALIZATIONS.index(kernel.normalization)}
            if kernel.needs_image:
                crf.addPairwiseBilateral(
                    sxy=kernel.thetas[:2],
                    srgb=kernel.thetas[2:],
                    rgbim=np.require(image, np.uint8, ["C", "W"]),
                    **options,
                )
            elif kernel.vectors is None:
                crf.addPairwiseGaussian(sxy=kernel.thetas, **options)
            else:
                features = np.require(kernel.features(image, height, width), np.float32, ["C", "W"])
                crf.addPairwiseEnergy(features, **options)
        return np.array(crf.inference(iterations), np.float32).reshape(unary.shape)

    def infer_batch(
        self,
        images: Sequence[np.ndarray | None],
        unaries: Sequence[np.ndarray],
        kernels: Sequence[Kernel],
        iterations: int,
        threads: int,
    ) -> list[np.ndarray]:
        """See ``Engine.infer_batch``. ``threads`` has no effect."""
        return [self.infer(i, u, kernels, iterations) for i, u in zip(images, unaries, strict=True)]
