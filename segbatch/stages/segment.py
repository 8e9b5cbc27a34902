"""The stage that decodes images, runs the network in batches and keeps the coarse scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from segbatch.causes import is_of_the_machine, lost_gpu
from segbatch.codecs.decode import decode, image_size
from segbatch.errors import JobError, RecordFailure
from segbatch.models.scores import checked_scores
from segbatch.protocols import UNTRACKED, InFlight, Model
from segbatch.records import Chunk, Record
from segbatch.stages.failures import failed
from segbatch.stages.previews import Previewer
from segbatch.stages.scoring import coarse_scores

# Decoded pixels of a window. Two windows are in memory at once, whatever the sizes of the images.
_WINDOW_PIXELS = 16_000_000


class Segment:
    """Decode images, run the network in batches and keep the coarse scores of the candidate classes.

    The next window of images is decoded while the network scores the current one.

    Args:
        max_pixels: Larger images become error rows without being decoded.
        prune: See ``scoring.coarse_scores``.
        keep_images: Whether the encoded images stay in the records, for the refiner.
        threads: Images that are decoded at once.
        previewer: Makes the previews of a sample of the records.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_pixels: int,
        prune: float,
        keep_images: bool,
        threads: int = 1,
        previewer: Previewer | None = None,
    ) -> None:
        self.model, self.max_pixels, self.prune, self.keep_images = model, max_pixels, prune, keep_images
        self._previewer, self._sampled = previewer, frozenset[str]()
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, chunk: Chunk, in_flight: InFlight = UNTRACKED) -> Chunk:
        """Return the chunk with ``scores`` or an ``error`` in every record."""
        begun = time.perf_counter()
        self._sampled = self._previewer.chosen(chunk.records) if self._previewer else frozenset()
        records: list[Record] = []
        windows = _windows(chunk.records)
        ahead = self._decode(next(windows, None), in_flight)
        while ahead:
            (window, pixels), ahead = ahead, self._decode(next(windows, None), in_flight)
            decoded = [future.result() for future in window]
            positions = range(len(records), len(records) + len(window))
            in_flight.begin("segment", positions, pixels)
            records.extend(self._score(decoded))
            in_flight.end(positions)
        timings = {**chunk.timings, "segment": time.perf_counter() - begun}
        return replace(chunk, records=records, timings=timings)

    def _decode(
        self, window: tuple[int, list[Record], int] | None, in_flight: InFlight
    ) -> tuple[list[Future[tuple[Record, np.ndarray | None]]], int] | None:
        if window is None:
            return None
        first, records, claimed = window
        # A damaged header may claim any size; an image above max_pixels is refused and takes no time.
        pixels = min(claimed, len(records) * self.max_pixels)
        in_flight.begin("decode", range(first, first + len(records)), pixels)
        return [self._pool.submit(self._decode_one, record) for record in records], pixels

    def _decode_one(self, record: Record) -> tuple[Record, np.ndarray | None]:
        if record.error is not None:
            return replace(record, data=None), None
        if record.data is None:
            return record.failed("read", "MissingBytes", "the record has no image bytes"), None
        try:
            image = decode(record.data, self.max_pixels)
        except RecordFailure as e:
            return failed(record, "decode", e), None
        return replace(record, height=image.shape[0], width=image.shape[1]), image

    def _score(self, decoded: list[tuple[Record, np.ndarray | None]]) -> list[Record]:
        scored = iter(self._score_images([(record, image) for record, image in decoded if image is not None]))
        return [record if image is None else next(scored) for record, image in decoded]

    def _score_images(self, decoded: list[tuple[Record, np.ndarray]]) -> list[Record]:
        """Score a batch; if it fails, each image alone, so that one image cannot fail its neighbors."""
        ids, images = [record.image_id for record, _ in decoded], [image for _, image in decoded]
        try:
            scores = checked_scores(self.model, images, ids)
        except JobError:
            raise
        except Exception as e:  # boundary: one record; whatever fails becomes its error row
            if lost_gpu(e) or is_of_the_machine(e):
                raise
            if len(decoded) == 1:
                return [failed(decoded[0][0], "segment", e)]
            return [record for one in decoded for record in self._score_images([one])]
        return [self._keep(record, image, logits) for (record, image), logits in zip(decoded, scores, strict=True)]

    def _keep(self, record: Record, image: np.ndarray, logits: np.ndarray) -> Record:
        try:
            scores = coarse_scores(logits, image.shape[0], image.shape[1], self.model.stride, self.prune)
        except RecordFailure as e:
            return failed(record, "segment", e)
        preview = None
        if self._previewer and record.image_id in self._sampled:
            preview = self._previewer.preview(record.image_id, image, scores)
        return replace(record, scores=scores, data=record.data if self.keep_images else None, preview=preview)


def _windows(records: Sequence[Record]) -> Iterator[tuple[int, list[Record], int]]:
    """Divide records into windows of at most ``_WINDOW_PIXELS``, or of one record.

    Yields the position of the first record, the records, and their pixels by their headers.
    """
    window: list[Record] = []
    held = 0
    for position, record in enumerate(records):
        size = image_size(record.data) if record.data else None
        area = size[0] * size[1] if size else 0
        if window and held + area > _WINDOW_PIXELS:
            yield position - len(window), window, held
            window, held = [], 0
        window.append(record)
        held += area
    if window:
        yield len(records) - len(window), window, held
