"""Whether a job may resume an output: only with the settings and the rows version that its rows have."""

from __future__ import annotations

from typing import Any

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.models.custom import factory_weights
from segbatch.output.run_record import RunRecord, differences


def refuse_other_version(uri: str, existing: RunRecord, rows_version: int) -> None:
    """Raise ``PlanError`` if the output has rows of another version than this segbatch writes."""
    if existing.rows_version != rows_version:
        raise PlanError(
            f"{uri}: written by segbatch {existing.versions.get('segbatch', '?')} with rows version "
            f"{existing.rows_version}, this version of segbatch writes {rows_version}, whose rows differ; "
            "choose another --output, or resume with the segbatch that wrote it"
        )


def refuse_other(uri: str, existing: RunRecord, requested: RunRecord, spec: JobSpec) -> None:
    """Raise ``PlanError`` with what differs if the output was written with different settings."""
    lines = [] if changed_source(existing, requested) else differences(existing.deciding, requested.identity)
    if spec.chunk_size is not None and spec.chunk_size != existing.chunk_size:
        lines.append(f"chunk_size {existing.chunk_size} there, {spec.chunk_size} requested")
    if lines:
        shown = "; ".join(lines)
        raise PlanError(
            f"{uri}: was written with different settings: {shown}; "
            f"{_crf_remedy(existing.deciding, requested.identity, spec)}choose another --output, or --overwrite to "
            "delete it (--dry-run --overwrite lists what is deleted)"
        )


def changed_source(existing: RunRecord, requested: RunRecord) -> tuple[str, ...]:
    """Return one line if only the source of a user's network has changed, and the network scores as before."""
    before, now = (record["model"]["weights"] for record in (existing.deciding, requested.identity))
    as_before = {**requested.identity, "model": {**requested.identity["model"], "weights": before}}
    if before == now or as_before != existing.deciding or not requested.trial or requested.trial != existing.trial:
        return ()
    if factory_weights(before) != factory_weights(now):
        return ()
    name = requested.identity["model"]["name"]
    return (
        f"the source of {name} has changed since the first run of this output; it is resumed, since the network scores "
        "the sample images exactly as before",
    )


def _crf_remedy(existing: dict[str, Any], requested: dict[str, Any], spec: JobSpec) -> str:
    """Return how to resume if only CRF parameters differ that come with the weights."""
    before, now = existing["crf"] or {}, requested["crf"] or {}
    differ = {name: before[name] for name in now if before.get(name, now[name]) != now[name]}
    if not differ or differ.keys() & spec.crf.keys() or {**existing, "crf": None} != {**requested, "crf": None}:
        return ""
    flags = " ".join(f"--crf-{name.replace('_', '-')} {value}" for name, value in differ.items())
    return f"these come with the weights of this version, add {flags} to resume, or "


def changed_limits(existing: RunRecord, spec: JobSpec) -> tuple[str, ...]:
    """Return one line if the latest run of the output had other limits than ``spec``."""

    def shown(value: object) -> str:
        return "not given" if value is None else f"{value:,}"

    requested = spec.plain("limit")
    changed = [
        f"{name} {shown(before)} before, {shown(requested[name])} now"
        for name, before in existing.spec.items()
        if name in requested and before != requested[name]
    ]
    if not changed:
        return ()
    remedy = "" if spec.retry_errors else "; committed error rows are kept; --retry-errors computes them again"
    return (f"the latest run of this output had other limits: {'; '.join(changed)}{remedy}",)
