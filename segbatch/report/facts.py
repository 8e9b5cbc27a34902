"""What was run, how long it took, and how to run it again, from run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from segbatch.config.job import JobSpec
from segbatch.output.run_record import RunRecord
from segbatch.text import counted, duration

_MAX_INPUTS = 10
_STAGES = ("read", "segment", "refine")


@dataclass(frozen=True)
class StageTime:
    """Seconds of all workers in one stage, their share of all stages, and milliseconds per record."""

    name: str
    seconds: str
    share: float
    per_record: str


def run_facts(record: RunRecord, output: str) -> list[tuple[str, str]]:
    """Return what was run as (name, value) pairs."""
    identity = record.identity
    model, crf = _mapping(identity.get("model")), _mapping(identity.get("crf"))
    inputs = record.inputs or list(record.spec.get("inputs", ()))
    more = f", and {len(inputs) - _MAX_INPUTS:,} more" if len(inputs) > _MAX_INPUTS else ""
    parameters = ", ".join(f"{name} {_shown(value)}" for name, value in crf.items())
    refiner = str(identity.get("refiner", record.spec.get("refiner", "")))
    weights = f"{record.spec.get('weights', '')}, {model.get('weights', 'digest not recorded')}"
    pairs = {
        "network": f"{record.spec.get('model', '')}, {counted(len(record.classes), 'class')}",
        "weights": weights.removeprefix(", "),
        "precision": f"{identity.get('precision', '')}; temperature {_shown(model.get('temperature', 1))}",
        "refiner": f"{refiner}: {parameters}" if parameters else refiner,
        "inputs": ", ".join(inputs[:_MAX_INPUTS]) + more,
        "output": output,
        "started": _minute(record.started),
        "finished": _minute(record.finished) if record.finished else "not yet",
        "fingerprint": f"{record.fingerprint}; chunks of {counted(record.chunk_size, 'record')}",
        "versions": ", ".join(f"{package} {version}" for package, version in record.versions.items()),
    }
    return [(name, value) for name, value in pairs.items() if value]


def stage_times(record: RunRecord, records: int) -> list[StageTime]:
    """Return the times of the stages in their order; none before a run is finished."""
    seconds = record.timings.worker_seconds
    total = sum(seconds.values())
    order = sorted(seconds, key=lambda stage: (_STAGES.index(stage) if stage in _STAGES else len(_STAGES), stage))
    return [
        StageTime(
            stage,
            duration(seconds[stage]) if seconds[stage] >= 10 else f"{seconds[stage]:.2g} s",
            seconds[stage] / total if total else 0.0,
            f"{1000 * seconds[stage] / records:,.3g} ms" if records else "",
        )
        for stage in order
    ]


def speed(record: RunRecord, records: int) -> str:
    """Return images per second of the last call, if that computed all of them; else ""."""
    timings = record.timings
    if not timings.seconds or timings.chunks_computed < timings.chunks or not records:
        return ""
    return f"{records / timings.seconds:,.3g}"


def job_yaml(record: RunRecord, output: str) -> str:
    """Return a configuration that computes the same rows: settings that are not the default, and what `auto` chose."""
    given = {**record.spec, "inputs": record.inputs or record.spec.get("inputs"), "output": output}
    given |= {"chunk_size": record.chunk_size or None}
    given |= {name: record.identity[name] for name in ("precision", "prune") if name in record.identity}
    fields = JobSpec.model_fields
    deciding = JobSpec.names("rows", "limit") | {"output"}
    settings = {
        name: given[name]
        for name in fields
        if name in deciding and given.get(name) is not None and given[name] != fields[name].default
    }
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _minute(iso: str) -> str:
    return f"{iso[:16].replace('T', ' ')} UTC"
