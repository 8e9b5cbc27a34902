"""Merge the many small result files of an output into few large ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbatch.logs import LogReporter
from segbatch.output.compaction import Compaction
from segbatch.output.output import Output
from segbatch.protocols import Reporter


def compact(
    output: str,
    *,
    target_bytes: int = 128 * 10**6,
    storage_options: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Compaction:
    """Merge result files of less than half of ``target_bytes``; the rows stay as they are.

    Safe to kill: the same call resumes, and until then every command reads the output as before.

    Args:
        output: The folder or prefix that was ``--output`` of a finished run.
        target_bytes: Size of the merged files, about. Memory: four times as much.
        storage_options: Passed to fsspec.
        reporter: Receives a message for each merged file; by default the logger ``segbatch`` does.

    Raises:
        PlanError: There is no output of segbatch.
        OutputError: A run is unfinished, or what the files hold is not what run.json records.
    """
    return Output.open(output, storage_options).compact(target_bytes, reporter or LogReporter())
