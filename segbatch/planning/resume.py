"""Whether a job may resume an output: only with the settings and the version that its rows were made with."""

from __future__ import annotations

from typing import Any

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.output.run_record import RunRecord, differences


def refuse_other_version(uri: str, existing: RunRecord, rows_version: int) -> None:
    """Raise ``PlanError`` if the output's rows are not those that this version of segbatch writes."""
    if existing.rows_version != rows_version:
        raise PlanError(
            f"{uri}: written by segbatch {existing.versions.get('segbatch', '?')} with rows version "
            f"{existing.rows_version}, this version of segbatch writes {rows_version}, whose rows differ; "
            "choose another --output, or resume with the segbatch that wrote it"
        )


def refuse_other(uri: str, existing: RunRecord, requested: RunRecord, spec: JobSpec) -> None:
    """Raise ``PlanError`` with what differs if the output holds the results of another job."""
    lines = differences(existing.deciding, requested.identity)
    if spec.chunk_size is not None and spec.chunk_size != existing.chunk_size:
        lines.append(f"chunk_size: {existing.chunk_size} in the output, {spec.chunk_size} in this job")
    if lines:
        shown = "\n  ".join(lines + _crf_remedy(existing.deciding, requested.identity, spec))
        raise PlanError(
            f"{uri}: holds the results of another job; what differs:\n  {shown}\n"
            "choose another --output, or give --overwrite to remove those results first "
            "(--dry-run --overwrite lists them; nothing else is removed)"
        )


def _crf_remedy(existing: dict[str, Any], requested: dict[str, Any], spec: JobSpec) -> list[str]:
    """How to resume, where parameters of the CRF that come with the weights are all that differs."""
    there, here = existing["crf"] or {}, requested["crf"] or {}
    differ = {name: there[name] for name in here if there.get(name, here[name]) != here[name]}
    if not differ or differ.keys() & spec.crf.keys() or {**existing, "crf": None} != {**requested, "crf": None}:
        return []
    flags = " ".join(f"--crf-{name.replace('_', '-')} {value}" for name, value in differ.items())
    return [f"(these are not given and come with the weights of this version; to resume, add {flags})"]


def changed_limits(existing: RunRecord, spec: JobSpec) -> tuple[str, ...]:
    """One line that names the limits of ``spec`` that the output's last run had otherwise; none if there are none."""

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
    remedy = "" if spec.retry_errors else "; error rows that are committed stay, unless --retry-errors is given"
    return (f"the last run of this output had other limits: {'; '.join(changed)}{remedy}",)
