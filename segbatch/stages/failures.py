"""What a failure of one record is called, and whether the last records of a chunk failed."""

from __future__ import annotations

from collections.abc import Sequence

from segbatch.errors import RecordFailure
from segbatch.records import Record


def record_failure(stage: str, e: Exception) -> RecordFailure:
    if isinstance(e, RecordFailure):
        return e
    if isinstance(e, MemoryError):
        return RecordFailure(stage, "OutOfMemory", f"out of memory: {e}; a smaller max_pixels keeps such images out")
    return RecordFailure(stage, type(e).__name__, str(e) or type(e).__name__)


# In the order of the flow: what failed in one did not reach those behind it.
STAGES = ("segment", "refine")


def last_failures(records: Sequence[Record], stage: str) -> list[Record]:
    """Of the records that reached ``stage``, those at the end that failed there, the last one first."""
    failed = []
    for record in reversed(records):
        if has_passed(record, stage):
            break
        if record.error is not None and record.error.stage == stage:
            failed.append(record)
    return failed


def has_passed(record: Record, stage: str) -> bool:
    return record.error is None or record.error.stage in STAGES[STAGES.index(stage) + 1 :]
