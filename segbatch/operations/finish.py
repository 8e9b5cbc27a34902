"""The end of a run: publish what is committed, and return the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segbatch.labels import LabelSet
from segbatch.output.sums import ReceiptSums
from segbatch.output.totals import Totals
from segbatch.planning.claim import keep_latest
from segbatch.planning.plan import Plan
from segbatch.skipped import Skipped


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        output: The output, redacted.
        labels: Names and colors of the classes.
        totals: Sums over all rows.
        chunks: Number of chunks of the output.
        computed: Number of chunks that this call has computed; the others were committed before.
        retired: Number of chunks that this call has archived, since their shard has changed or is gone.
        seconds: Duration of the call.
        max_error_fraction: Above this share of error rows the exit code is 3.
        skipped: What the inputs hold besides records.
        failed_shards: Why the first shards failed as a whole, one message each.
    """

    output: str
    labels: LabelSet
    totals: Totals
    chunks: int
    computed: int
    retired: int
    seconds: float
    max_error_fraction: float
    skipped: Skipped = field(default_factory=Skipped)
    failed_shards: Sequence[str] = ()

    @property
    def error_fraction(self) -> float:
        """Share of the records that are error rows, 0 to 1."""
        return self.totals.failed / self.totals.records if self.totals.records else 0.0

    @property
    def exit_code(self) -> int:
        """0, or 3 with more error rows than ``max_error_fraction``, or a shard that failed as a whole."""
        return 3 if self.error_fraction > self.max_error_fraction or self.totals.failed_shards else 0

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data, documented in README.md."""
        return {
            "output": self.output,
            "records": self.totals.records,
            "errors": self.totals.errors,
            "skipped": self.skipped.to_json(),
            "failed_shards": list(self.failed_shards),
            "chunks": self.chunks,
            "chunks_computed": self.computed,
            "chunks_retired": self.retired,
            "seconds": round(self.seconds, 2),
            "exit_code": self.exit_code,
        }


def finish(plan: Plan, receipt_sums: ReceiptSums, seconds: float) -> RunResult:
    """Publish what is committed, once every chunk of the plan is in a fresh listing of the output.

    Args:
        plan: The plan as it was executed.
        receipt_sums: Sums over the chunks that this run has committed; receives those of all others.
        seconds: What this run took.

    Raises:
        OutputError: Chunks are missing; the same command computes them. Nothing is published.
        OutputTaken: Another job has taken the output over. Nothing is published.
    """
    output, computed = plan.output, len(receipt_sums.filenames)
    keep_latest(plan)
    samples = plan.job.spec.report_samples
    retired = output.finish(plan.job.shards, receipt_sums, plan.job.skipped, seconds, samples)
    record = output.record
    totals = record.sums()
    return RunResult(
        output=output.uri,
        labels=record.labels,
        totals=totals,
        chunks=record.timings.chunks,
        computed=computed,
        retired=retired,
        seconds=seconds,
        max_error_fraction=plan.job.spec.max_error_fraction,
        skipped=record.all_skipped,
        failed_shards=output.failed_shards() if totals.failed_shards else (),
    )
