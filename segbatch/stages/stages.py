"""The stages between read and finish: plain classes that take a Chunk. They know nothing of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from segbatch.causes import is_of_the_machine
from segbatch.codecs import mask_png as png
from segbatch.codecs.decode import decode, image_size
from segbatch.errors import NetworkError, RecordFailure
from segbatch.isolation.watch import UNWATCHED, Watch, lost_gpu
from segbatch.labels import LabelSet
from segbatch.models.scores import checked_scores
from segbatch.output import totals as pixels
from segbatch.output.schema import Result
from segbatch.protocols import Model, Refiner
from segbatch.records import Chunk, Record, RecordError, Scores
from segbatch.refiners.probability import label_probability

# Decoded pixels that are held at once: bounds a worker's memory whatever the sizes of the images.
_WINDOW_PIXELS = 16_000_000


class Segment:
    """Decode, run the network in batches, keep the coarse scores of the classes that can win."""

    def __init__(self, model: Model, *, max_pixels: int, prune: float, keep_images: bool, threads: int = 1) -> None:
        self.model, self.max_pixels, self.prune, self.keep_images = model, max_pixels, prune, keep_images
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, chunk: Chunk, watch: Watch = UNWATCHED) -> Chunk:
        """The chunk with ``scores`` or an ``error`` in every record; image bytes stay if the refiner needs them."""
        begun = time.perf_counter()
        records: list[Record] = []
        windows = _windows(chunk.records)
        ahead = self._decode(next(windows, None), watch)
        while ahead:
            (window, pixels), ahead = ahead, self._decode(next(windows, None), watch)
            decoded = [future.result() for future in window]
            places = range(len(records), len(records) + len(window))
            watch.begin("segment", places, pixels)
            records.extend(self._score(decoded))
            watch.end(places)
        timings = {**chunk.timings, "segment": time.perf_counter() - begun}
        return replace(chunk, records=records, timings=timings)

    def _decode(
        self, window: tuple[int, list[Record], int] | None, watch: Watch
    ) -> tuple[list[Future[tuple[Record, np.ndarray | None]]], int] | None:
        if window is None:
            return None
        first, records, claimed = window
        # A damaged header claims any size; what is more than max_pixels is refused, and needs no time.
        pixels = min(claimed, len(records) * self.max_pixels)
        watch.begin("decode", range(first, first + len(records)), pixels)
        return [self._pool.submit(self._decode_one, record) for record in records], pixels

    def _decode_one(self, record: Record) -> tuple[Record, np.ndarray | None]:
        if record.error is not None:
            return replace(record, data=None), None
        if record.data is None:
            return record.failed("read", "MissingBytes", "the record has no image bytes"), None
        try:
            image = decode(record.data, self.max_pixels)
        except RecordFailure as e:
            return record.failed(e.stage, e.kind, e.message), None
        return replace(record, height=image.shape[0], width=image.shape[1]), image

    def _score(self, decoded: list[tuple[Record, np.ndarray | None]]) -> Iterator[Record]:
        scored = iter(self._scores([(record.image_id, image) for record, image in decoded if image is not None]))
        for record, image in decoded:
            if image is None:
                yield record
                continue
            outcome = next(scored)
            if isinstance(outcome, RecordError):
                yield record.failed(outcome.stage, outcome.type, outcome.message)
                continue
            try:
                kept = coarse_scores(outcome, image.shape[0], image.shape[1], self.model.stride, self.prune)
            except RecordFailure as e:
                yield record.failed(e.stage, e.kind, e.message)
                continue
            yield replace(record, scores=kept, data=record.data if self.keep_images else None)

    def _scores(self, named: list[tuple[str, np.ndarray]]) -> list[np.ndarray | RecordError]:
        """Scores of each image; if the batch fails, each image alone, so that one cannot take others with it."""
        ids, images = [name for name, _ in named], [image for _, image in named]
        try:
            return [*checked_scores(self.model, images, ids)]
        except NetworkError:
            raise
        except Exception as e:
            if lost_gpu(e) or is_of_the_machine(e):
                raise
            if len(images) == 1:
                failure = _failure("segment", e)
                return [RecordError(failure.stage, failure.kind, failure.message)]
            return [outcome for one in named for outcome in self._scores([one])]


class Refine:
    """Sharpen the boundaries, encode the mask, count the classes.

    Args:
        temperature: What the network's logits are divided by for ``confidence``, which is its probability of the final
            label of each pixel.
        has_marginal: Whether results have the mean of the refiner's own probabilities, too.
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
        # One thread more would do nothing but hand over.
        self._map = ThreadPoolExecutor(threads).map if threads > 1 else map

    def __call__(self, chunk: Chunk, watch: Watch = UNWATCHED) -> tuple[list[Result], dict[str, float]]:
        """A result for every record, in order, and the seconds of each stage so far."""
        begun = time.perf_counter()

        def one(place: int) -> Result:
            record = chunk.records[place]
            watch.begin("refine", [place], (record.height or 0) * (record.width or 0))
            result = self._one(record)
            watch.end([place])
            return result

        results = list(self._map(one, range(len(chunk.records))))
        return results, {**chunk.timings, "refine": time.perf_counter() - begun}

    def _one(self, record: Record) -> Result:
        if record.error is not None:
            return Result(replace(record, data=None))
        try:
            assert record.scores is not None
            needs = self.refiner.needs_image and record.data is not None
            image = decode(record.data, self.max_pixels) if needs and record.data is not None else None
            mask, marginal = self.refiner.refine(image, record.scores)
            probability = label_probability(record.scores, mask, len(self.labels), self.temperature)
            classes, confidence = pixels.count(mask, probability, len(self.labels))
            mean_marginal = float(marginal.mean(dtype=np.float64)) if self.has_marginal else None
            data = png.encode(mask, self._palette, len(self.labels))
        except Exception as e:
            if is_of_the_machine(e):
                raise
            failure = _failure("refine", e)
            return Result(record.failed(failure.stage, failure.kind, failure.message))
        return Result(replace(record, data=None, scores=None), data, classes, confidence, mean_marginal)


def coarse_scores(logits: np.ndarray, height: int, width: int, stride: int, prune: float) -> Scores:
    """Log-probabilities float16 of the classes of ``logits`` (C, h, w) that can win at some pixel of the image.

    Kept are classes whose probability reaches ``prune`` in some cell, and those that can have the highest
    score between cells: in no 2x2 neighbourhood does another class's lowest score exceed all of theirs.
    Taking a constant from all classes of a cell leaves interpolation, arg-max and softmax as they were.
    Raises ``RecordFailure`` for scores that are not finite.
    """
    if not np.isfinite(logits).all():
        raise RecordFailure(
            "segment", "NonFiniteScores", "the network's scores hold NaN or infinity; try precision: fp32"
        )
    top = logits.max(axis=0)
    logp = logits - (top + np.log(np.exp(logits - top).sum(axis=0)))
    keep = np.ones(len(logp), bool)
    if prune > 0:
        surest = _neighbourhood(np.minimum, logp).max(axis=0)
        can_win = (_neighbourhood(np.maximum, logp) >= surest).any(axis=(1, 2))
        keep = can_win | (logp.max(axis=(1, 2)) >= np.log(prune))
    lowest = np.finfo(np.float16).min
    values = np.maximum(logp[keep], lowest).astype(np.float16)
    return Scores(values, np.flatnonzero(keep).astype(np.int16), height, width, stride)


def _neighbourhood(reduce: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
    """``reduce`` over every 2x2 neighbourhood of (C, h, w); a side of one cell stays as it is."""
    if x.shape[1] > 1:
        x = reduce(x[:, :-1], x[:, 1:])
    if x.shape[2] > 1:
        x = reduce(x[:, :, :-1], x[:, :, 1:])
    return x


def _windows(records: Sequence[Record]) -> Iterator[tuple[int, list[Record], int]]:
    """Runs of records whose images together have at most ``_WINDOW_PIXELS``, or one record.

    With the place of the first one, and their pixels.
    """
    window: list[Record] = []
    held = 0
    for place, record in enumerate(records):
        size = image_size(record.data) if record.data else None
        area = size[0] * size[1] if size else 0
        if window and held + area > _WINDOW_PIXELS:
            yield place - len(window), window, held
            window, held = [], 0
        window.append(record)
        held += area
    if window:
        yield len(records) - len(window), window, held


def _failure(stage: str, e: Exception) -> RecordFailure:
    if isinstance(e, RecordFailure):
        return e
    if isinstance(e, MemoryError):
        return RecordFailure(stage, "OutOfMemory", f"out of memory: {e}; a smaller max_pixels keeps such images out")
    return RecordFailure(stage, type(e).__name__, str(e) or type(e).__name__)
