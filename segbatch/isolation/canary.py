"""Tells a stage that is broken in this process from images that it cannot process. Does not import Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from segbatch.errors import NetworkError
from segbatch.isolation.stage import Item, Items
from segbatch.protocols import UNWATCHED, Watch
from segbatch.records import Chunk, Record
from segbatch.stages.failures import last_failures


class Canary(Generic[Item]):
    """Runs a stage, and sample images through it whenever the last records of a chunk failed.

    Args:
        name: The stage.
        what: The network or refiner, for messages.
        run: What the stage does with a chunk.
        record: The record in an item of ``run``.
        chunk: The sample images.
        is_trusted: Whether they succeed where nothing is broken. If not, that is found out before the first chunk: some
            networks refuse images of another size than theirs.
    """

    def __init__(
        self,
        name: str,
        what: str,
        run: Callable[[Chunk, Watch], Items[Item]],
        record: Callable[[Item], Record],
        chunk: Chunk,
        is_trusted: bool,
    ) -> None:
        self._name, self._what, self._run, self._record, self.chunk = name, what, run, record, chunk
        self._passes = True if is_trusted else None

    def __call__(self, chunk: Chunk, watch: Watch) -> Items[Item]:
        """Raises ``NetworkError`` if the sample images fail that succeeded before: a lost device, a missing kernel."""
        if self._passes is None:
            self._passes = self._fault() is None
        items, timings = self._run(chunk, watch)
        failed = last_failures([self._record(item) for item in items], self._name)
        if failed and self._passes and (fault := self._fault()):
            raise NetworkError(
                f"{self._what} is broken on this machine: after {len(failed)} images that failed, sample images fail "
                f"that did not before: {fault}; check the device, its driver and libraries, and run the same command"
            )
        return items, timings

    def _fault(self) -> str | None:
        try:
            items, _ = self._run(self.chunk, UNWATCHED)
        except NetworkError as e:
            return str(e)
        errors = [error for item in items if (error := self._record(item).error) and error.stage == self._name]
        return f"{errors[0].type}: {errors[0].message}" if errors else None
