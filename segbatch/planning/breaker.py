"""Stops a job whose network fails on every image, before any error rows of it are committed. Does not import Ray.

Errors have an owner. An image that a network dislikes is an error row, and so is a whole shard of them. Images of two
shards that fail one after another, and none that succeeds in between, are the network's doing: it is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from segbatch.errors import NetworkError
from segbatch.logs import event
from segbatch.output.receipt import Receipt
from segbatch.packing import pack_chunk, unpack_chunk
from segbatch.planning.plan import Plan
from segbatch.records import Chunk, Record
from segbatch.stages.failures import STAGES, has_passed, last_failures
from segbatch.text import escape_control_characters

logger = logging.getLogger(__name__)

MIN_FAILURES = 32
_MAX_CAUSES, _MAX_MESSAGE = 3, 300


@dataclass(frozen=True)
class ChunkOutcome:
    """A chunk that all stages have processed: committed, or held back because it ``is_suspect``; one of both."""

    receipt: Receipt | None = None
    held: Chunk | None = None


def is_suspect(chunk: Chunk) -> bool:
    """Whether its last records at some stage failed there, so that it is not known yet whose fault that is."""
    return any(last_failures(chunk.records, stage) for stage in STAGES)


@dataclass
class _Failures:
    """The failures of a chunk at a stage: how many, and of each type of error how many with one message."""

    shard: str
    count: int
    causes: dict[str, tuple[int, str]] = field(default_factory=dict)

    @staticmethod
    def of(shard: str, records: Sequence[Record]) -> _Failures:
        failures = _Failures(shard, len(records))
        for error in (r.error for r in records):
            assert error is not None
            count, _ = failures.causes.get(error.type, (0, ""))
            failures.causes[error.type] = (count + 1, error.message)  # the first one's: the last comes first
        return failures


class Breaker:
    """Stands between the chunks as they are done and the sums of what is committed.

    A chunk whose last records failed at a stage is held back until a record of another chunk succeeds there. Held are
    packed error rows, some 10 KB a chunk, and few masks: a chunk with masks in it ends the wait of those before.

    Args:
        plan: The whole job. The few images that are left of one that has committed chunks do not stop it.
        commit: Commits a chunk that was held back.
    """

    def __init__(self, plan: Plan, commit: Callable[[Chunk], Receipt]) -> None:
        spec = plan.job.spec
        self._commit = commit
        self._names = {"segment": f"network {spec.model}", "refine": f"refiner {spec.refiner}"}
        self._shards_needed = min(2, len(plan.job.shards))
        self._resumed = plan.chunks_done() > 0
        self._failures: dict[str, dict[str, _Failures]] = {stage: {} for stage in STAGES}
        self._succeeded: set[str] = set()
        self._held: dict[str, bytes] = {}

    def receipts(
        self, outcomes: Iterable[ChunkOutcome], has_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Receipt]:
        """Receipts of all that is committed, also of what is held back, once it is known that it may be committed.

        Args:
            outcomes: Chunks in order of completion.
            has_stopped: Asked at the end: whether chunks of the plan are left for another time. What is still held back
                then is left, too, if no record succeeded.

        Raises:
            NetworkError: At a stage the last ``MIN_FAILURES`` records failed, of two shards where the plan has two, or
                all of them did, if there were fewer. What is held back is not committed.
        """
        for outcome in outcomes:
            yield from self._take(outcome)
        yield from self._close(has_stopped())

    def _take(self, outcome: ChunkOutcome) -> Iterator[Receipt]:
        if outcome.receipt is not None:
            self._held.pop(outcome.receipt.filename, None)
            if outcome.receipt.totals.records > outcome.receipt.totals.failed:
                for stage in STAGES:
                    self._succeed(stage)
            yield outcome.receipt
        if outcome.held is not None:
            self._hold(outcome.held)
        for name in self._held.keys() - {name for streak in self._failures.values() for name in streak}:
            yield self._commit(unpack_chunk(self._held.pop(name)))

    def _close(self, stopped: bool) -> Iterator[Receipt]:
        for stage, streak in self._failures.items():
            if streak and stage not in self._succeeded:
                if stopped:
                    return
                if not self._resumed:
                    raise self._broken(stage)
        while self._held:
            yield self._commit(unpack_chunk(self._held.popitem()[1]))

    def _succeed(self, stage: str) -> None:
        self._succeeded.add(stage)
        self._failures[stage].clear()

    def _hold(self, chunk: Chunk) -> None:
        name = chunk.id.filename
        self._held[name] = pack_chunk(chunk)
        for stage, streak in self._failures.items():
            if any(has_passed(record, stage) for record in chunk.records):
                self._succeed(stage)
            if failed := last_failures(chunk.records, stage):
                streak[name] = _Failures.of(chunk.id.shard_id, failed)
                event(logger, logging.INFO, "a chunk is held back", chunk=name, stage=stage, failed=len(failed))
            shards = {failures.shard for failures in streak.values()}
            if sum(f.count for f in streak.values()) >= MIN_FAILURES and len(shards) >= self._shards_needed:
                raise self._broken(stage)

    def _broken(self, stage: str) -> NetworkError:
        causes: dict[str, tuple[int, str]] = {}
        streak = self._failures[stage].values()
        for failures in streak:
            for kind, (count, message) in failures.causes.items():
                before, first = causes.get(kind, (0, message))
                causes[kind] = (before + count, first)
        ordered = sorted(causes.items(), key=lambda cause: -cause[1][0])[:_MAX_CAUSES]
        said = "; ".join(
            f"{n} x {kind}: {escape_control_characters(message[:_MAX_MESSAGE])}" for kind, (n, message) in ordered
        )
        count, shards = sum(f.count for f in streak), len({f.shard for f in streak})
        return NetworkError(
            f"{self._names[stage]} failed on the last {count} images ({shards} shard{'s' * (shards > 1)}), one after "
            f"another: {said}. Nothing of their chunks is committed; correct it, or what it runs on, and run the same "
            "command"
        )
