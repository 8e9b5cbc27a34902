"""A chunk that killed its worker, run so that only the record at fault is lost. Knows nothing of Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from segbatch.errors import SegbatchError, visible
from segbatch.isolation.child import Cell, Death
from segbatch.isolation.watch import Limits
from segbatch.logs import event
from segbatch.protocols import Stage
from segbatch.records import Chunk, Record, RecordError

logger = logging.getLogger(__name__)

POISON = "PoisonRecord"


def quarantine(stage: Stage, build: Callable[[], Stage], chunk: Chunk, limits: Limits, hung: bool = False) -> Chunk:
    """What ``stage`` makes of the chunk, in child processes; a record that kills them becomes an error row.

    The chunk runs whole, in the batches of an undisturbed run, so that its rows are the same if its worker died of
    something else. If the child dies, the records that it had in hand run one by one; one that dies alone in a fresh
    child is at fault, and the chunk runs whole again with that record as if it could not be decoded. Should the
    whole die again although every record survives alone, these runs are the result. ``hung`` says that the worker
    probably met the time limit: the records then run alone first, so that it is not waited for once more.

    Raises ``SegbatchError`` if a child does not survive its canary: that is no record's fault.
    """
    begun = time.perf_counter()
    ward = _Ward(stage, build, chunk, limits)
    try:
        done = ward.treat(hung)
    finally:
        ward.close()
    return replace(done, timings={**done.timings, "quarantine": time.perf_counter() - begun})


class _Ward:
    """One chunk in quarantine: its child process, what came of records alone, and who is at fault."""

    def __init__(self, stage: Stage, build: Callable[[], Stage], chunk: Chunk, limits: Limits) -> None:
        self._stage, self._build, self._chunk, self._limits = stage, build, chunk, limits
        self._cell: Cell | None = None
        self._alone: dict[int, Record] = {}
        self._faults: dict[int, RecordError] = {}

    def treat(self, hung: bool) -> Chunk:
        everyone = range(len(self._chunk.records))
        if hung:
            self._examine(everyone)
        riddles = 0
        while riddles < 2:
            records = [replace(r, error=self._faults.get(k, r.error)) for k, r in enumerate(self._chunk.records)]
            outcome = self._run(replace(self._chunk, records=records))
            if not isinstance(outcome, Death):
                return replace(outcome, records=[self._record(k, record) for k, record in enumerate(outcome.records)])
            riddles += not self._examine(sorted(outcome.stages) or everyone)
        self._examine([k for k in everyone if k not in self._alone])
        return replace(self._chunk, records=[self._record(k, self._alone.get(k)) for k in everyone])

    def _record(self, place: int, record: Record | None) -> Record:
        """What came of the record at ``place``: ``record``, or its fault."""
        fault = self._faults.get(place)
        if fault is not None:
            return self._chunk.records[place].failed(fault.stage, fault.type, fault.message)
        assert record is not None
        return record

    def _examine(self, places: Sequence[int]) -> bool:
        """Run the records at ``places`` one by one; whether any of them was found at fault."""
        before = len(self._faults)
        for place in places:
            if place not in self._faults:
                self._examine_one(place)
        return len(self._faults) > before

    def _examine_one(self, place: int) -> None:
        record = self._chunk.records[place]
        killed = 0
        while True:
            fresh = self._cell is None or self._cell.runs == 0
            outcome = self._run(replace(self._chunk, records=[record]))
            if not isinstance(outcome, Death):
                (self._alone[place],) = outcome.records
                return
            # A crash may be the doing of a record before it. A kill may come from outside: not twice in a row.
            killed += fresh and outcome.kind == "killed"
            if outcome.kind == "time" or (fresh and outcome.kind != "killed") or killed == 2:
                stage = outcome.stages.get(0, self._stage.name)
                self._faults[place] = RecordError(stage, POISON, f"the record {outcome.cause}, also when it ran alone")
                fields = {"chunk": self._chunk.id.filename, "image": visible(record.image_id), "stage": stage}
                event(logger, logging.WARNING, "a record is poison", **fields, cause=outcome.cause)
                return

    def _run(self, chunk: Chunk) -> Chunk | Death:
        """In the child that is there, or in a new one."""
        for attempt in range(2):
            self._cell = self._cell or Cell(self._build, self._limits)
            outcome = self._cell.run(chunk)
            if not isinstance(outcome, Death):
                return outcome
            self._cell = None
            if outcome.ready:
                return outcome
            if attempt:
                raise SegbatchError(
                    f"{self._stage.name}: fails on this machine even for small sample images: it {outcome.cause}; "
                    "see the worker's log (device, driver, memory, max_worker_bytes)"
                )
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._cell is not None:
            self._cell.close()
