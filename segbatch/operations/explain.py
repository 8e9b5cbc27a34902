"""Describe a job without running it: ``run --dry-run``."""

from __future__ import annotations

from collections.abc import Iterable

from segbatch.config.job import JobSpec
from segbatch.errors import ModelError
from segbatch.isolation import Limits
from segbatch.output.reconcile import Outdated
from segbatch.planning.plan import Plan, make_plan
from segbatch.planning.pools import Hardware, plan_pools
from segbatch.ray_backend.connection import cluster, is_connected, is_remote
from segbatch.text import escape_control_characters


def explain(spec: JobSpec) -> str:
    """Return the plan as text: shards, chunks, committed chunks, model, classes, refiner, workers. Writes nothing.

    Raises:
        SegbatchError: What a run would raise before it computes, and ``ModelError`` for a network whose scores of
            sample images have a wrong size.
    """
    plan = make_plan(spec)
    if plan.job.model.wrong_size:
        raise ModelError(plan.job.model.wrong_size)
    if is_remote(spec) and not is_connected():
        with cluster(spec) as hardware:
            return _describe(plan, hardware)
    return _describe(plan, Hardware.local(spec))


def _describe(plan: Plan, hardware: Hardware) -> str:
    plan = plan.with_chunk_size(hardware.cpus).with_precision(hardware)
    spec, shards = plan.job.spec, plan.job.shards
    total, done = plan.chunks_total(), plan.chunks_done()
    known = sum(s.records or 0 for s in shards)
    unknown = sum(s.records is None for s in shards)
    formats = sorted({s.format for s in shards})
    records = (
        f"{known:,} records"
        if not unknown
        else f"{known:,} records, and {unknown:,} shards with an unknown number of them"
    )
    classes = plan.job.model.labels.names
    shown = ", ".join(classes[:6]) + (f", … ({len(classes)} in all)" if len(classes) > 6 else "")
    size = sum(s.size for s in shards)
    parameters = ", ".join(f"{key} {value}" for key, value in plan.job.refiner.parameters.items())
    pools = plan_pools(spec, hardware, total - done)
    auto = " (auto)" if spec.precision == "auto" else ""
    lines = {
        "input": f"{len(shards):,} shards ({', '.join(formats)}), {size / 1e6:,.1f} MB, {records}",
        **_joined(plan.job.notes),
        "chunks": f"{'about ' if unknown else ''}{total:,} of at most {plan.chunk_size} records",
        "committed": f"{done:,} chunks, {plan.shards_done():,} complete shards" if not plan.is_first else "nothing",
        **Outdated.of(shards, plan.ledger).notices(plan.output.store, plan.ledger),
        **({"retried": f"{len(plan.retried):,} chunks with error rows"} if plan.retried else {}),
        "model": f"{plan.job.model.name}, weights {plan.job.model.weights}, {plan.job.precision}{auto}, "
        f"temperature {plan.job.model.temperature:g}",
        **({"weights": plan.job.model.note} if plan.job.model.note else {}),
        "classes": shown,
        "pruned": f"classes below {plan.job.prune:g} at every pixel" if plan.job.prune else "nothing",
        "refiner": f"{spec.refiner}: {parameters}" if parameters else spec.refiner,
        **({"crf from": plan.job.refiner.tuned} if plan.job.refiner.tuned else {}),
        "workers": pools.describe(),
        "memory": Limits.of(spec, pools.workers_per_node).describe_memory(hardware.elastic),
        "cores": f"{hardware.cpus:g} CPUs, {hardware.gpus:g} GPUs",
        "output": plan.output.uri,
        "fingerprint": plan.record.fingerprint,
    }
    removed = plan.output.describe_clear() if spec.overwrite else []
    damaged = plan.output.damaged()
    notes = [
        *(("damaged", f"{problem}; is computed again") for problem in damaged),
        *(("removes", text) for text in removed),
        *(("skipped", escape_control_characters(text)) for text in plan.job.skipped.lines()),
        *(("warning", text) for text in plan.warnings()),
    ]
    return "\n".join(f"{key:13}{value}" for key, value in [*lines.items(), *notes])


def _joined(notes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the notes about each subject into one line."""
    lines: dict[str, str] = {}
    for name, text in notes:
        lines[name] = f"{lines[name]}; {text}" if name in lines else text
    return {name: escape_control_characters(text) for name, text in lines.items()}
