"""Distinguish a stage that is broken in this process from images that it cannot process."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

from PIL import Image

from segbatch.errors import NetworkError
from segbatch.models.scores import sample_images, sample_scores
from segbatch.protocols import UNTRACKED, InFlight
from segbatch.records import Chunk, ChunkId, Record
from segbatch.stages.failures import last_failures


class SelfChecking:
    """A stage that runs sample images after each chunk whose last records failed in it.

    Args:
        name: The stage's name.
        what: The network or refiner, for messages.
        run: Processes a chunk.
        samples: The sample images.
        is_trusted: Whether the sample images are known to succeed unless the process is broken. If not, they are run
            before the first chunk: some networks refuse images of any size but one.
    """

    def __init__(
        self,
        name: str,
        what: str,
        run: Callable[[Chunk, InFlight], Chunk],
        samples: Chunk,
        is_trusted: bool,
    ) -> None:
        self.name, self._what, self._run, self._samples = name, what, run, samples
        self._passes = True if is_trusted else None

    def __call__(self, chunk: Chunk, in_flight: InFlight) -> Chunk:
        """Process a chunk.

        Raises:
            NetworkError: The sample images fail, and succeeded before: the device is lost, or a kernel is missing.
        """
        if self._passes is None:
            self._passes = self._fault() is None
        done = self._run(chunk, in_flight)
        failed = last_failures(done.records, self.name)
        if failed and self._passes and (fault := self._fault()):
            raise NetworkError(
                f"{self._what} is broken on this machine: {len(failed)} images failed, and so do sample images that "
                f"succeeded before: {fault}; check the device, its driver and libraries, and run the same command"
            )
        return done

    def canary(self) -> Chunk:
        """Return the sample images."""
        return self._samples

    def _fault(self) -> str | None:
        try:
            done = self._run(self._samples, UNTRACKED)
        except NetworkError as e:
            return str(e)
        errors = [r.error for r in done.records if r.error is not None and r.error.stage == self.name]
        return f"{errors[0].type}: {errors[0].message}" if errors else None


def sample_chunk(scores: tuple[int, int] | None = None) -> Chunk:
    """Return the sample images as a chunk.

    Args:
        scores: Number of classes and stride, for a stage after the network: records then have scores in which all
            classes are equal.
    """
    records = []
    for index, image in enumerate(sample_images()):
        height, width = image.shape[:2]
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        record = Record(f"sample image {index + 1}", "sample", index, data.getvalue(), None, height, width)
        records.append(record if scores is None else replace(record, scores=sample_scores(image, *scores)))
    return Chunk(ChunkId("sample", 0, True), records)
