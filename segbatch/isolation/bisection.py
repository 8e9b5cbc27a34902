"""Run a chunk that crashed its worker again, so that only the record that caused the crash is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from segbatch.errors import PlatformError
from segbatch.isolation.child import ChildExit, ChildProcess
from segbatch.isolation.limits import Limits
from segbatch.logs import event
from segbatch.protocols import Stage
from segbatch.records import Chunk, Record, RecordError
from segbatch.text import escape_control_characters

logger = logging.getLogger(__name__)

POISON = "PoisonRecord"


def quarantine(stage: Stage, build: Callable[[], Stage], chunk: Chunk, limits: Limits, hung: bool = False) -> Chunk:
    """Run ``stage`` on the chunk in child processes; a record that crashes them becomes an error row.

    The chunk runs whole, in the batches of an undisturbed run, so that its rows are the same if its worker crashed for
    another reason. If the child crashes, the records that were in flight run one by one; one that crashes alone in a
    fresh child caused the crash, and the chunk runs whole again with that record as if it could not be decoded. If the
    whole chunk crashes twice although every record survives alone, the results of these single runs are taken.

    Args:
        hung: The worker probably exceeded the time limit. The records then run alone first, so that the time limit is
            not waited for once more.

    Raises:
        PlatformError: A child does not survive its canary, which no record can cause.
    """
    begun = time.perf_counter()
    bisection = _Bisection(stage, build, chunk, limits)
    try:
        done = bisection.run(hung)
    finally:
        bisection.close()
    return replace(done, timings={**done.timings, "quarantine": time.perf_counter() - begun})


class _Bisection:
    """One chunk in quarantine: its child process, the results of records that ran alone, and the poison records."""

    def __init__(self, stage: Stage, build: Callable[[], Stage], chunk: Chunk, limits: Limits) -> None:
        self._stage, self._build, self._chunk, self._limits = stage, build, chunk, limits
        self._child: ChildProcess | None = None
        self._alone: dict[int, Record] = {}
        self._poison: dict[int, RecordError] = {}

    def run(self, hung: bool) -> Chunk:
        """Return the chunk with the result of every record, see ``quarantine``."""
        positions = range(len(self._chunk.records))
        if hung:
            self._run_alone(positions)
        unexplained_crashes = 0
        while unexplained_crashes < 2:
            records = [replace(r, error=self._poison.get(k, r.error)) for k, r in enumerate(self._chunk.records)]
            outcome = self._run(replace(self._chunk, records=records))
            if not isinstance(outcome, ChildExit):
                return replace(outcome, records=[self._record(k, record) for k, record in enumerate(outcome.records)])
            unexplained_crashes += not self._run_alone(sorted(outcome.stages) or positions)
        self._run_alone([k for k in positions if k not in self._alone])
        return replace(self._chunk, records=[self._record(k, self._alone.get(k)) for k in positions])

    def _record(self, position: int, record: Record | None) -> Record:
        """The result at ``position``: ``record``, or the error row of a poison record."""
        error = self._poison.get(position)
        if error is not None:
            return self._chunk.records[position].failed(error.stage, error.type, error.message)
        assert record is not None
        return record

    def _run_alone(self, positions: Sequence[int]) -> bool:
        """Run the records at ``positions`` one by one; return whether any of them is poison."""
        before = len(self._poison)
        for position in positions:
            if position not in self._poison:
                self._run_one(position)
        return len(self._poison) > before

    def _run_one(self, position: int) -> None:
        record = self._chunk.records[position]
        killed = 0
        while True:
            fresh = self._child is None or self._child.runs == 0
            outcome = self._run(replace(self._chunk, records=[record]))
            if not isinstance(outcome, ChildExit):
                (self._alone[position],) = outcome.records
                return
            # A crash may be caused by an earlier record. A kill may come from outside: not twice in a row.
            killed += fresh and outcome.kind == "killed"
            if outcome.kind == "time" or (fresh and outcome.kind != "killed") or killed == 2:
                stage = outcome.stages.get(0, self._stage.name)
                self._poison[position] = RecordError(
                    stage, POISON, f"the record {outcome.cause}, also when it ran alone"
                )
                fields = {
                    "chunk": self._chunk.id.filename,
                    "image": escape_control_characters(record.image_id),
                    "stage": stage,
                }
                event(logger, logging.WARNING, "poison record isolated", **fields, cause=outcome.cause)
                return

    def _run(self, chunk: Chunk) -> Chunk | ChildExit:
        """Run a chunk in the present child, or in a new one."""
        for attempt in range(2):
            self._child = self._child or ChildProcess(self._build, self._limits)
            outcome = self._child.run(chunk)
            if not isinstance(outcome, ChildExit):
                return outcome
            self._child = None
            if outcome.ready:
                return outcome
            if attempt:
                raise PlatformError(
                    f"{self._stage.name}: fails on this machine even for small sample images: it {outcome.cause}; "
                    "see the worker's log (device, driver, memory, max_worker_bytes)"
                )
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
