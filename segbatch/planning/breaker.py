"""Stop a job whose network fails on every image, before its error rows are committed. Does not import Ray.

Every error has an owner. An image on which a network fails is an error row, and so is a whole shard of such images. If
images of two shards fail one after another, and none in between succeeds, the network is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segbatch.errors import NetworkError
from segbatch.logs import event
from segbatch.output.receipt import Receipt
from segbatch.packing import pack_chunk, unpack_chunk
from segbatch.records import Chunk, Record
from segbatch.stages.failures import STAGES, has_passed, last_failures
from segbatch.text import counted, escape_control_characters

if TYPE_CHECKING:
    from segbatch.planning.plan import Plan  # workers, which import this module, need no plan

logger = logging.getLogger(__name__)

MIN_FAILURES = 32
_MAX_CAUSES, _MAX_MESSAGE = 3, 300


@dataclass(frozen=True)
class ChunkOutcome:
    """A chunk that all stages have processed: committed, or held back because it ``is_suspect``."""

    receipt: Receipt | None = None
    held: Chunk | None = None


def is_suspect(chunk: Chunk) -> bool:
    """Whether the last records of a chunk failed at some stage, so that the network may be broken."""
    return any(last_failures(chunk.records, stage) for stage in STAGES)


@dataclass
class _Failures:
    """The failures of a chunk at a stage.

    Attributes:
        shard: The shard of the chunk.
        count: Number of failed records.
        causes: For each type of error the number of records, and the message of the first.
    """

    shard: str
    count: int
    causes: dict[str, tuple[int, str]] = field(default_factory=dict)

    @staticmethod
    def of(shard: str, records: Sequence[Record]) -> _Failures:
        failures = _Failures(shard, len(records))
        for error in (r.error for r in records):
            assert error is not None
            count, _ = failures.causes.get(error.type, (0, ""))
            failures.causes[error.type] = (count + 1, error.message)  # of the first record: the last comes first
        return failures


class Breaker:
    """Passes on receipts, and holds back chunks whose last records failed until another chunk's records succeed.

    A held chunk is packed error rows, about 10 KB, with few masks: a chunk with masks releases those before it.

    Args:
        plan: The whole job. One that has committed chunks is not stopped by its few remaining images.
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
        """Yield the receipts of all committed chunks, also of held ones once they may be committed.

        Args:
            outcomes: Chunks in order of completion.
            has_stopped: Called at the end: whether chunks of the plan are left for another run. Held chunks are
                left, too, if no record succeeded.

        Raises:
            NetworkError: At a stage, the last ``MIN_FAILURES`` records of two shards failed (of one, if the plan has
                one), or all records of a smaller job. Held chunks are not committed.
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
                event(logger, logging.INFO, "chunk held back", chunk=name, stage=stage, failed=len(failed))
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
            f"{self._names[stage]} failed on the last {counted(count, 'image')} ({counted(shards, 'shard')}), one "
            f"after another: {said}. their chunks are not committed; correct it, or the machine, and run the same "
            "command"
        )
