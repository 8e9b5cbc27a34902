"""Error rows, and whether the last records of a chunk failed."""

from __future__ import annotations

from collections.abc import Sequence

from segbatch.errors import RecordFailure
from segbatch.records import Record


def failed(record: Record, stage: str, error: Exception) -> Record:
    """Return a record as an error row: of the stage and type of a ``RecordFailure``, or of ``stage`` for others."""
    if isinstance(error, RecordFailure):
        return record.failed(error.stage, error.type, error.message)
    if isinstance(error, MemoryError):
        message = f"out of memory: {error}; lower max_pixels to reject such images early"
        return record.failed(stage, "OutOfMemory", message)
    return record.failed(stage, type(error).__name__, str(error) or type(error).__name__)


# In order: a record that failed in one stage does not reach the next.
STAGES = ("segment", "refine")


def last_failures(records: Sequence[Record], stage: str) -> list[Record]:
    """Return the last records that reached ``stage``, as far as they failed there, the last one first."""
    failed = []
    for record in reversed(records):
        if has_passed(record, stage):
            break
        if record.error is not None and record.error.stage == stage:
            failed.append(record)
    return failed


def has_passed(record: Record, stage: str) -> bool:
    """Whether a record succeeded at ``stage``."""
    return record.error is None or record.error.stage in STAGES[STAGES.index(stage) + 1 :]
