"""What a failure of one record is called, and whether the last records of a chunk failed."""

from __future__ import annotations

from collections.abc import Sequence

from segbatch.errors import RecordFailure
from segbatch.records import Record


def failed(record: Record, stage: str, error: Exception) -> Record:
    """Return a record as an error row: with the stage, type and message of a ``RecordFailure``, else of ``stage``."""
    if isinstance(error, RecordFailure):
        return record.failed(error.stage, error.type, error.message)
    if isinstance(error, MemoryError):
        message = f"out of memory: {error}; a smaller max_pixels keeps such images out"
        return record.failed(stage, "OutOfMemory", message)
    return record.failed(stage, type(error).__name__, str(error) or type(error).__name__)


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
