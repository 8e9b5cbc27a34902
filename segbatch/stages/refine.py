"""The stage that refines scores, encodes the mask and counts the classes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from segbatch.causes import is_of_the_machine
from segbatch.codecs import mask_png as png
from segbatch.codecs.decode import decode
from segbatch.errors import JobError
from segbatch.labels import LabelSet
from segbatch.protocols import UNTRACKED, InFlight, Refiner
from segbatch.records import Chunk, ClassCount, Record
from segbatch.refiners.probability import label_probability
from segbatch.stages.failures import failed


def count(mask: np.ndarray, confidence: np.ndarray, num_classes: int) -> tuple[tuple[ClassCount, ...], float]:
    """Count the classes of a mask.

    Args:
        mask: Class ids (H, W).
        confidence: Probability of the predicted class, float32 (H, W).

    Returns:
        One entry per class in the mask, most pixels first, and the mean confidence of the image.
    """
    ids = mask.ravel()
    pixels = np.bincount(ids, minlength=num_classes)
    sums = np.bincount(ids, weights=confidence.ravel(), minlength=num_classes)
    present = sorted(np.flatnonzero(pixels).tolist(), key=lambda c: (-pixels[c], c))
    counts = tuple(
        ClassCount(c, int(pixels[c]), float(np.float32(pixels[c] / ids.size)), float(np.float32(sums[c] / pixels[c])))
        for c in present
    )
    return counts, float(np.float32(sums.sum() / ids.size))


class Refine:
    """Refine the scores of each record, encode the mask and count its classes.

    Args:
        max_pixels: Larger images are not decoded.
        temperature: Divisor of the network's logits. Their softmax is ``confidence``: the network's probability of the
            class that each pixel has in the refined mask.
        has_marginal: Whether records also get the mean of the refiner's own probabilities.
        threads: Records that are refined at once.
    """

    def __init__(
        self,
        refiner: Refiner,
        labels: LabelSet,
        *,
        max_pixels: int,
        temperature: float = 1.0,
        has_marginal: bool = False,
        threads: int = 1,
    ) -> None:
        self.refiner, self.labels, self.max_pixels = refiner, labels, max_pixels
        self.temperature, self.has_marginal = temperature, has_marginal
        self._palette = labels.palette()
        # A pool of one thread would add a thread that only waits for it.
        self._map = ThreadPoolExecutor(threads).map if threads > 1 else map

    def __call__(self, chunk: Chunk, in_flight: InFlight = UNTRACKED) -> Chunk:
        """Return the chunk with ``mask``, ``classes`` and ``confidence``, or an ``error``, in every record."""
        begun = time.perf_counter()

        def refine(position: int) -> Record:
            record = chunk.records[position]
            in_flight.begin("refine", [position], (record.height or 0) * (record.width or 0))
            refined = self._one(record)
            in_flight.end([position])
            return refined

        records = list(self._map(refine, range(len(chunk.records))))
        return replace(chunk, records=records, timings={**chunk.timings, "refine": time.perf_counter() - begun})

    def _one(self, record: Record) -> Record:
        if record.error is not None:
            return replace(record, data=None)
        try:
            assert record.scores is not None
            needs = self.refiner.needs_image and record.data is not None
            image = decode(record.data, self.max_pixels) if needs and record.data is not None else None
            mask, marginal = self.refiner.refine(image, record.scores)
            probability = label_probability(record.scores, mask, len(self.labels), self.temperature)
            classes, confidence = count(mask, probability, len(self.labels))
            mean_marginal = float(marginal.mean(dtype=np.float64)) if self.has_marginal else None
            data = png.encode(mask, self._palette, len(self.labels))
        except JobError:
            raise
        except Exception as e:  # boundary: one record; whatever fails becomes its error row
            if is_of_the_machine(e):
                raise
            return failed(record, "refine", e)
        return replace(
            record,
            data=None,
            scores=None,
            mask=data,
            classes=classes,
            confidence=confidence,
            marginal=mean_marginal,
        )
