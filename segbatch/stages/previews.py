"""Previews of a sample of the images, for reports."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbatch.codecs import mask_png, photograph
from segbatch.labels import LabelSet
from segbatch.logs import event
from segbatch.records import Preview, Record, Scores, sample_key
from segbatch.stages.scoring import unrefined_pixels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreviewSample:
    """Which records of a job get a preview: about those with the ``count`` smallest ``sample_key``.

    Each chunk decides alone, by the share that ``count`` is of the expected number of records. Chosen are somewhat
    more records; the end of a run keeps ``count`` of them.

    Attributes:
        count: Number of previews.
        records: Records of the shards whose formats know it.
        unknown_bytes: Bytes of the other shards.
    """

    count: int
    records: int = 0
    unknown_bytes: int = 0

    def share(self, records: Sequence[Record]) -> float:
        """Return the share of the records that is chosen, for a chunk with these encoded images."""
        if not self.count:
            return 0.0
        sizes = [len(record.data) for record in records if record.data]
        # By half of the number that the images of this chunk suggest, as other members of a tar count as bytes, too.
        unknown = self.unknown_bytes * len(sizes) / (2 * sum(sizes)) if sizes else 0.0
        enough = self.count + 4 * math.sqrt(self.count) + 8  # four standard deviations of the number that is drawn
        return enough / max(1.0, self.records + unknown)


class Previewer:
    """Makes the previews of the records that a sample has."""

    def __init__(self, sample: PreviewSample, labels: LabelSet) -> None:
        self._sample, self._palette, self._num_classes = sample, labels.palette(), len(labels)

    def chosen(self, records: Sequence[Record]) -> frozenset[str]:
        """Return the ids of the records of a chunk that get a preview."""
        bound = self._sample.share(records) * 2**64
        return frozenset(r.image_id for r in records if r.data and int(sample_key(r.image_id), 16) < bound)

    def preview(self, image_id: str, image: np.ndarray, scores: Scores) -> Preview | None:
        """Make the preview of an image uint8 (H, W, 3); None if that fails, with a line in the log."""
        try:
            rows, columns = (
                ((np.arange(small) + 0.5) * size / small).astype(np.int64)  # nearest
                for small, size in zip(photograph.preview_size(*image.shape[:2]), image.shape[:2], strict=True)
            )
            network = mask_png.encode(unrefined_pixels(scores, rows, columns), self._palette, self._num_classes)
            return Preview(image_id, photograph.encode(image), network)
        except Exception as e:  # boundary: one record, whose row must not depend on its preview
            event(logger, logging.WARNING, "preview failed", image=image_id, error=f"{type(e).__name__}: {e}")
            return None
