"""The whole job in this process, stage after stage, without Ray: for tests of what comes before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.operations.finish import RunResult, finish
from segbatch.output.receipt import Receipt
from segbatch.output.sums import ReceiptSums
from segbatch.planning.claim import publish
from segbatch.planning.inline import execute
from segbatch.planning.plan import Plan, make_plan
from segbatch.planning.pools import Hardware

ONE_CORE = Hardware(1, 0, 1, 0)


def spec(inputs: list[str], output: Path | str, **more: Any) -> JobSpec:
    """A small network, no refiner, chunks of four."""
    fields = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 4, "precision": "fp32", **more}
    return JobSpec.create(inputs=inputs, output=str(output), **fields)


def run(spec: JobSpec, work: Callable[[Plan], Iterable[Receipt]] = execute) -> RunResult:
    """``operations.run.run`` in one process."""
    plan = make_plan(spec)
    receipt_sums = ReceiptSums(len(plan.job.model.labels))
    if not plan.is_complete:
        plan = publish(plan.with_chunk_size(1).with_precision(ONE_CORE))
        for receipt in work(plan):
            receipt_sums.add(receipt)
    return finish(plan, receipt_sums, 0.0)
