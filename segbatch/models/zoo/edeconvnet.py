"""EDeconvNet: DeconvNet on many boxes of an image, aggregated and multiplied by FCN-8s on the whole.

Noh, Hong & Han, "Learning Deconvolution Network for Semantic Segmentation" (ICCV 2015), sec. 4.3-4.4: instance-wise
segmentation aggregated by the pixelwise maximum (eq. 1), and the ensemble with FCN-8s, which the published inference
multiplies. ``EDeconvNet`` states what the paper leaves open: how boxes are scaled, and zero where no box is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from segbatch.errors import ModelError
from segbatch.labels import LabelSet
from segbatch.models.catalog.edeconvnet import NAME, few_names
from segbatch.models.runner import TorchModel
from segbatch.models.zoo.deconvnet import SIDE
from segbatch.models.zoo.proposals import MAX_BOXES, Proposals, clipped, from_grid


class EDeconvNet:
    """DeconvNet in boxes of an image, times FCN-8s; implements ``segbatch.protocols.Model``.

    Noh et al. 2015, sec. 4.3-4.4. Each box is cut out, scaled to 224 x 224 whatever its shape (bilinearly with
    antialiasing), scored by ``deconvnet``, and its scores are scaled back. Where boxes overlap, the maximum of each
    class is taken, at least 0, which is also the score outside of all boxes (eq. 1). The scores are the product with
    max(0, scores of ``fcn``).

    Args:
        proposals: Returns the boxes of an image, the best first; by default ``proposals.grid``.
        most: Maximum number of boxes per image.

    Raises:
        ModelError: The two networks have different classes.
    """

    name = NAME
    stride = 1

    def __init__(
        self,
        deconvnet: TorchModel,
        fcn: TorchModel,
        proposals: Proposals | None = None,
        *,
        most: int = MAX_BOXES,
        digest: str = "",
    ) -> None:
        if deconvnet.classes != fcn.classes:
            raise ModelError(
                f"{NAME}: its two networks must have the same classes; deconvnet has {few_names(deconvnet.classes)}, "
                f"fcn8s {few_names(fcn.classes)}"
            )
        self.deconvnet, self.fcn, self.most, self.digest = deconvnet, fcn, most, digest
        self.proposals = proposals or from_grid(most)
        self.labels: LabelSet = deconvnet.labels

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.names

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        """Score images uint8 (H, W, 3) RGB; see ``protocols.Model``.

        Args:
            image_ids: Keys of the proposals of a file.

        Returns:
            float32 (C, H, W) each.

        Raises:
            RecordFailure: ``NoProposals`` for an image without a box.
        """
        names: Sequence[str | None] = image_ids or [None] * len(images)
        return [self._scores(image, name) for image, name in zip(images, names, strict=True)]

    def _scores(self, image: np.ndarray, image_id: str | None) -> np.ndarray:
        height, width = image.shape[:2]
        boxes = clipped(self.proposals(image, image_id), height, width, self.most)
        crops = [_scaled(image[t : t + h, l : l + w]) for t, l, h, w in boxes]  # noqa: E741
        total = np.zeros((len(self.labels), height, width), np.float32)
        for (t, l, h, w), scores in zip(boxes, self.deconvnet.scores(crops), strict=True):  # noqa: E741
            part = total[:, t : t + h, l : l + w]
            np.maximum(part, _scaled_scores(scores, h, w), out=part)
        (whole,) = self.fcn.scores([image])
        total *= np.maximum(whole, 0)
        return total


def _scaled(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _scaled_scores(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 (C, h, w) -> (C, height, width), as ``_scaled`` scales images."""
    scaled = F.interpolate(torch.from_numpy(scores)[None], (int(height), int(width)), mode="bilinear", antialias=True)
    return scaled[0].numpy()
