"""Progress as it is counted: what is shown of it is a matter of the command line."""

from __future__ import annotations

import logging
import time
from typing import Any

from segbatch.output.receipt import Receipt
from segbatch.planning.plan import Plan
from segbatch.planning.pools import Pools
from segbatch.records import ChunkId
from segbatch.text import duration

logger = logging.getLogger(__name__)


class Steps:
    """Counts the steps of one phase after another. Shows nothing; subclasses do."""

    def __init__(self) -> None:
        self.begin("starting")

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: Any) -> None:
        """Called at the end, also after a failure."""

    def begin(self, phase: str, total: int = 0) -> None:
        """A phase of at most ``total`` steps; 0 if they are not counted."""
        self.phase, self.total, self.done, self.begun = phase, total, 0, time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def status(self) -> str:
        """``searching: 120 of at most 327, 40 s left``."""
        seconds = time.monotonic() - self.begun
        if not self.total:
            return f"{self.phase}: {duration(seconds)}"
        left = f", at most {duration((self.total - self.done) * seconds / self.done)} left" if self.done else ""
        return f"{self.phase}: {self.done} of at most {self.total}{left}"


class Progress:
    """Counts what is committed. Shows nothing by itself; subclasses do."""

    records = errors = computed = done = total = 0

    def start(self, plan: Plan, pools: Pools) -> None:
        self.begun = time.monotonic()
        self.done = plan.chunks_done()
        # How many chunks a tar has is known when its last one is committed; until then it is guessed.
        self._chunks = {s.id: plan.chunks(s) for s in plan.job.shards}
        self.total = sum(self._chunks.values())
        self.guessed = "about " if any(s.records is None for s in plan.job.shards) else ""
        for text in plan.warnings():
            self.warn(text)
        self.show()

    def advance(self, receipt: Receipt) -> None:
        self.computed += 1
        self.done += 1
        self.records += receipt.totals.records
        self.errors += receipt.totals.failed
        chunk = ChunkId.parse(receipt.filename)
        if chunk is not None:
            guess = self._chunks[chunk.shard_id]
            known = chunk.index + 1 if chunk.last else max(guess, chunk.index + 1)
            self._chunks[chunk.shard_id] = known
            self.total += known - guess
        self.show()

    def stop(self) -> None:
        """Called at the end, also after a failure."""

    def warn(self, text: str) -> None:
        """Called for each warning about the job, once."""
        logger.warning("%s", text)

    def show(self) -> None:
        """Called after every change."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def status(self) -> str:
        """``1200 images, 85.1/s, 3 errors, 40 s left``."""
        left = (
            "" if not self.computed else f", {duration((self.total - self.done) * self.seconds / self.computed)} left"
        )
        rate = self.records / max(1e-6, self.seconds)
        # A large network on a CPU takes many seconds an image.
        shown = f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
        return f"{self.records} images, {shown}/s, {self.errors} errors{left}"
