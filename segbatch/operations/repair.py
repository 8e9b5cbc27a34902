"""Repair an output: set damaged files aside, and compute what is missing by the job of its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.logs import LogReporter
from segbatch.operations.finish import RunResult
from segbatch.operations.verify import Verification
from segbatch.output.output import Output
from segbatch.planning.recorded import recorded_spec
from segbatch.planning.resume import refuse_other_version
from segbatch.protocols import Reporter
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.text import counted


def repair(
    output: str,
    report: Verification,
    run: Callable[[JobSpec], RunResult],
    inputs: list[str] | None = None,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Repair what a report names, and nothing else.

    Damaged files are set aside, after their undamaged chunks were written elsewhere; missing chunks are computed, and
    statistics, run.json and ``_SUCCESS`` are written again. Killed at any moment, it leaves an unfinished output: the
    same call, or the command of the run, finishes it.

    Args:
        output: The folder or prefix that was ``--output`` of the run.
        report: What ``verify`` found.
        run: Runs a job.
        inputs: Where the inputs are now; by default where the run had them.
        storage_options: Passed to fsspec.
        reporter: Receives a message for each file; by default the logger ``segbatch`` does.

    Raises:
        SegbatchError: The run cannot be repeated: an input is gone, or another version wrote the rows.
    """
    reporter = reporter or LogReporter()
    opened = Output.open(output, storage_options)
    refuse_other_version(opened.uri, opened.record, ROWS_VERSION)
    spec = recorded_spec(opened.record, inputs, storage_options, output=output)
    opened.unpublish()
    for text in opened.set_aside({**dict.fromkeys(report.extraneous, ()), **report.damaged}):
        reporter.message(text)
    outcome = run(spec)
    reporter.message(
        f"computed {outcome.computed:,} of {counted(outcome.chunks, 'chunk')}; statistics and totals are written again"
    )
    return outcome
