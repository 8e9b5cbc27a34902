"""Mends what ``verify`` found wrong: takes it out of the output, and lets the run's own job compute it anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.logs import LogReporter
from segbatch.operations.finish import Outcome
from segbatch.operations.verify import Report
from segbatch.operations.verify_input import recorded_spec
from segbatch.output.compaction import merge, tidy
from segbatch.output.inventory import set_aside
from segbatch.output.layout import MASKS, SUCCESS
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import RunRecord
from segbatch.planning.claim import refuse_other_version
from segbatch.protocols import Reporter
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.storage.store import Store


def repair(
    output: str,
    report: Report,
    run: Callable[[JobSpec], Outcome],
    inputs: list[str] | None = None,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Redo what ``report`` names and nothing else, by ``run`` with the spec that run.json keeps.

    Files that hold something wrong go to ``set-aside/``, after what is right in them was written elsewhere; chunks
    that are then missing are computed, and the statistics, run.json and ``_SUCCESS`` written anew. Killed at any
    moment it leaves an unfinished output: the same call, or the run's own command, finishes it. Raises
    ``SegbatchError`` where the run cannot be repeated, as with an input that is gone or another version's rows.
    """
    reporter = reporter or LogReporter()
    store = Store(output, storage_options)
    record = RunRecord.need(store)
    refuse_other_version(store, record, ROWS_VERSION)
    spec = recorded_spec(record, inputs, storage_options, output=output)
    store.remove(SUCCESS)
    ledger = Ledger.read(store, damaged={})
    for name in report.excess:
        reporter.message(_set_aside(store, name))
    for name, chunks in report.spoilt.items():
        rows = merge(store, ledger, [name], record.claim, without=frozenset(chunks)) if chunks else []
        kept = f"; what is right in it is in {MASKS}/{rows[0].name}" if rows else ""
        reporter.message(_set_aside(store, name) + kept)
    tidy(store, Ledger.read(store), record.claim)
    outcome = run(spec)
    reporter.message(
        f"computed {outcome.computed:,} of {outcome.chunks:,} chunks; statistics, run.json and {SUCCESS} are new"
    )
    return outcome


def _set_aside(store: Store, name: str) -> str:
    (target,) = set_aside(store, [name]).values()
    return f"{MASKS}/{name}: moved to {target.removesuffix(name)}"
