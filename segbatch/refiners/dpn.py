"""The last layers of DPN after any network: one step of mean field, no iteration (Liu et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segbatch.protocols import Json
from segbatch.records import Scores
from segbatch.refiners.entry import NoParams, RefinerWeights
from segbatch.refiners.none import pick
from segbatch.refiners.upsample import upsample


class DPNRefiner:
    """Layers b12 to b15 over the candidate classes of an image; see ``segbatch.models.zoo.dpn.Parsing``.

    Args:
        contexts: Label contexts of b13, a float32 tensor (mixtures * C, C, 9, 9). By default Potts: every other label
            costs the same.
        digest: Identifies ``contexts``.
    """

    needs_image = True

    def __init__(self, contexts: Any = None, digest: str = "potts") -> None:
        self._contexts = contexts
        self.parameters: Mapping[str, Json] = {"weights": digest}

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the label contexts; None if they fit any number."""
        return None if self._contexts is None else self._contexts.shape[1]

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """Return the class ids int16 (H, W) of the highest marginals, and these, float32 (H, W)."""
        from segbatch.models.zoo.dpn import of_labels, parse  # imports torch

        if image is None or image.shape[:2] != (scores.height, scores.width):
            given = None if image is None else image.shape
            raise ValueError(f"image has shape {given} but size is {(scores.height, scores.width)}; give the image")
        contexts = None if self._contexts is None else of_labels(self._contexts, scores.class_ids)
        return pick(parse(image, upsample(scores), contexts), scores.class_ids)


def build(params: NoParams, weights: RefinerWeights | None) -> DPNRefiner:
    """Build the refiner.

    Args:
        weights: A DPN that was trained here; its label contexts are used.

    Raises:
        ModelError: The file has no label contexts.
    """
    if weights is None:
        return DPNRefiner()
    from segbatch.models.zoo.dpn import read_contexts  # imports torch

    return DPNRefiner(read_contexts(weights.data, weights.source), weights.digest)
