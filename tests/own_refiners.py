"""Refiners for the tests of the job: given as ``--refiner tests.own_refiners:NAME``, built in every worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from segbatch.records import Scores


class Uniform:
    """The class that most pixels have, everywhere, if the image is brighter than ``threshold``."""

    def __init__(self, threshold: float = 0.0) -> None:
        self.parameters = {"threshold": threshold}

    def refine(self, image: np.ndarray, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        mask = scores.class_ids[scores.values.argmax(axis=0)].repeat(scores.stride, 0).repeat(scores.stride, 1)
        mask = mask[: scores.height, : scores.width].astype(np.int64)
        if image.mean() > self.parameters["threshold"]:
            mask[:] = np.bincount(mask.ravel()).argmax()
        return mask, np.full(mask.shape, 0.75)


def uniform(weights: bytes | None) -> Uniform:
    """The most frequent class of the image."""
    return Uniform(float(weights or b"0"))


class Altered(Uniform):
    """Uniform whose result is altered before it is returned."""

    def __init__(self, alter: Callable[[np.ndarray, np.ndarray], Any], **attributes: Any) -> None:
        super().__init__()
        self._alter = alter
        vars(self).update(attributes)

    def refine(self, image: np.ndarray | None, scores: Scores) -> Any:
        return self._alter(*super().refine(np.zeros(1) if image is None else image, scores))


def _pair(mask: np.ndarray, marginal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mask, marginal


def _fail(mask: np.ndarray, marginal: np.ndarray) -> None:
    raise RuntimeError("not this image")


def _only_samples(mask: np.ndarray, marginal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (mask if mask.shape[0] in (67, 107) else mask[1:]), marginal


without_image = partial(Altered, _pair, needs_image=False)
of_four_classes = partial(Altered, _pair, num_classes=4)
of_set = partial(Altered, _pair, parameters={"sizes": {1, 2}})
mask_alone = partial(Altered, lambda mask, marginal: mask)
floats = partial(Altered, lambda mask, marginal: (mask.astype(np.float32), marginal))
too_small = partial(Altered, lambda mask, marginal: (mask[1:], marginal[1:]))
unknown_class = partial(Altered, lambda mask, marginal: (mask + 5, marginal))
failing = partial(Altered, _fail)
too_small_of_real_images = partial(Altered, _only_samples)


def nothing() -> object:
    return object()


def unbuildable() -> Uniform:
    raise RuntimeError("no license")
