"""Describe a job without running it: ``run --dry-run``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.errors import ModelError
from segbatch.isolation import Limits
from segbatch.output.reconcile import Outdated
from segbatch.planning.plan import Plan, make_plan
from segbatch.planning.pools import Hardware, Pools, plan_pools
from segbatch.ray_backend.connection import cluster, is_connected, is_remote
from segbatch.text import counted, escape_control_characters, redact


@dataclass(frozen=True)
class Explanation:
    """What a run would do.

    Attributes:
        plan: With the chunk size and precision that the run would choose.
        hardware: Where it would run.
    """

    plan: Plan
    hardware: Hardware

    @property
    def pools(self) -> Pools:
        """The workers that the run would start."""
        return plan_pools(self.plan.job.spec, self.hardware, self.plan.chunks_left(), self.plan.job.is_refine_bound)

    def to_text(self) -> str:
        """Return one line for each subject."""
        lines = {
            **self._of_input(),
            **self._of_network(),
            "workers": self.pools.describe(),
            "memory": self._memory(),
            "cores": f"{self.hardware.cpus:g} CPUs, {self.hardware.gpus:g} GPUs",
            "output": self.plan.output.uri,
            "fingerprint": self.plan.record.fingerprint,
        }
        notes = [
            *(("damaged", f"{problem}; is computed again") for problem in self.plan.output.damaged()),
            *(("removes", text) for text in self._removed()),
            *(("skipped", escape_control_characters(text)) for text in self.plan.job.skipped.lines()),
            *(("warning", text) for text in self.plan.warnings()),
        ]
        return "\n".join(f"{key:13}{value}" for key, value in [*lines.items(), *notes])

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data, documented in README.md."""
        plan, job, pools = self.plan, self.plan.job, self.pools
        return {
            "inputs": [redact(uri) for uri in job.spec.inputs],
            "output": plan.output.uri,
            "fingerprint": plan.record.fingerprint,
            "shards": len(job.shards),
            "formats": sorted({s.format for s in job.shards}),
            "bytes": sum(s.size for s in job.shards),
            "records": sum(s.records or 0 for s in job.shards),
            "shards_of_unknown_length": sum(s.records is None for s in job.shards),
            "notes": _joined(job.notes),
            "chunk_size": plan.chunk_size,
            "chunks": plan.chunks_total(),
            "chunks_committed": plan.chunks_done(),
            "chunks_retried": len(plan.retried),
            "model": job.model.name,
            "weights": job.model.weights,
            "classes": list(job.model.labels.names),
            "precision": job.precision,
            "prune": job.prune,
            "refiner": job.spec.refiner,
            "refiner_parameters": dict(job.refiner.parameters),
            "segment_actors": pools.segment_actors,
            "refine_actors": pools.refine_actors,
            "workers": pools.describe(),
            "memory": self._memory(),
            "cpus": self.hardware.cpus,
            "gpus": self.hardware.gpus,
            "damaged": list(plan.output.damaged()),
            "removed": self._removed(),
            "skipped": job.skipped.to_json(),
            "warnings": plan.warnings(),
        }

    def _of_input(self) -> dict[str, str]:
        plan, shards = self.plan, self.plan.job.shards
        known = sum(s.records or 0 for s in shards)
        unknown = sum(s.records is None for s in shards)
        formats, size = sorted({s.format for s in shards}), sum(s.size for s in shards)
        records = counted(known, "record")
        if unknown:
            records += f", and {counted(unknown, 'shard')} with an unknown number of them"
        chunks = f"{plan.chunks_total():,} of at most {counted(plan.chunk_size, 'record')}"
        done, complete = counted(plan.chunks_done(), "chunk"), counted(plan.shards_done(), "complete shard")
        return {
            "input": f"{counted(len(shards), 'shard')} ({', '.join(formats)}), {size / 1e6:,.1f} MB, {records}",
            **_joined(plan.job.notes),
            "chunks": f"about {chunks}" if unknown else chunks,
            "committed": "nothing" if plan.is_first else f"{done}, {complete}",
            **Outdated.of(shards, plan.ledger).notices(plan.output.store, plan.ledger),
            **({"retried": f"{counted(len(plan.retried), 'chunk')} with error rows"} if plan.retried else {}),
        }

    def _of_network(self) -> dict[str, str]:
        job = self.plan.job
        classes, parameters = job.model.labels.names, job.refiner.parameters
        auto = " (auto)" if job.spec.precision == "auto" else ""
        refined = ", ".join(f"{key} {value}" for key, value in parameters.items())
        return {
            "model": f"{job.model.name}, weights {job.model.weights}, {job.precision}{auto}, "
            f"temperature {job.model.temperature:g}",
            **({"weights": job.model.note} if job.model.note else {}),
            "classes": ", ".join(classes[:6]) + (f", … ({len(classes)} in all)" if len(classes) > 6 else ""),
            "pruned": f"classes below {job.prune:g} at every pixel" if job.prune else "nothing",
            "refiner": f"{job.spec.refiner}: {refined}" if refined else job.spec.refiner,
            **({"crf from": job.refiner.tuned} if job.refiner.tuned else {}),
        }

    def _memory(self) -> str:
        limits = Limits.of(self.plan.job.spec, self.pools.workers_per_node)
        return limits.describe_memory(self.hardware.elastic)

    def _removed(self) -> list[str]:
        return list(self.plan.output.describe_clear()) if self.plan.job.spec.overwrite else []


def explain(spec: JobSpec) -> Explanation:
    """Plan a job without running it. Writes nothing.

    Raises:
        SegbatchError: What a run would raise before it computes, and ``ModelError`` for a network whose scores of
            sample images have a wrong size.
    """
    plan = make_plan(spec)
    if plan.job.model.wrong_size:
        raise ModelError(plan.job.model.wrong_size)
    if is_remote(spec) and not is_connected():
        with cluster(spec) as hardware:
            return _explanation(plan, hardware)
    return _explanation(plan, Hardware.local(spec))


def _explanation(plan: Plan, hardware: Hardware) -> Explanation:
    return Explanation(plan.with_chunk_size(hardware.cpus).with_precision(hardware), hardware)


def _joined(notes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the notes about each subject into one line."""
    lines: dict[str, str] = {}
    for name, text in notes:
        lines[name] = f"{lines[name]}; {text}" if name in lines else text
    return {name: escape_control_characters(text) for name, text in lines.items()}
