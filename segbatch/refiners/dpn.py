"""The last layers of DPN after any network: one step of mean field, no iteration (Liu et al. 2015)."""

from __future__ import annotations

from typing import Any

import numpy as np

from segbatch.config.job import JobSpec
from segbatch.records import Scores
from segbatch.refiners.none import pick
from segbatch.refiners.upsample import upsample


class DPNRefiner:
    """b12 to b15 over the classes that the image can show; see ``segbatch.models.zoo.dpn.Parsing``.

    ``spec.refiner_weights`` is the URI of a file with the label contexts of b13: a DPN that was trained here. Without,
    every other label costs the same. Raises ``ModelError`` for a file that does not hold them.
    """

    needs_image = True

    def __init__(self, spec: JobSpec) -> None:
        self.contexts: Any = None
        self.parameters: dict[str, Any] = {"weights": "potts"}
        if spec.refiner_weights is not None:
            from segbatch.models.zoo.dpn import read_contexts

            self.contexts, self.parameters["weights"] = read_contexts(spec.refiner_weights, spec.storage_options)

    @property
    def num_classes(self) -> int | None:
        """Classes that the contexts are for; None if they fit any number."""
        return None if self.contexts is None else self.contexts.shape[1]

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """The class ids int16 (H, W) of the highest marginals, and these, float32 (H, W)."""
        from segbatch.models.zoo.dpn import of_labels, parse

        if image is None or image.shape[:2] != (scores.height, scores.width):
            found = None if image is None else image.shape
            raise ValueError(f"image has shape {found} but size is {(scores.height, scores.width)}; give the image")
        contexts = None if self.contexts is None else of_labels(self.contexts, scores.class_ids)
        return pick(parse(image, upsample(scores), contexts), scores.class_ids)
