"""Claims an output for one job: whose it is, what is in the way, and run.json before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segbatch.errors import PlanError
from segbatch.output.compaction import retire
from segbatch.output.file_table import FileTable
from segbatch.output.layout import MASKS, RUN, SUCCESS
from segbatch.output.owned import in_the_way, owned, remove_owned
from segbatch.output.run_record import RunRecord, differences
from segbatch.storage.store import Store

if TYPE_CHECKING:
    from segbatch.config.job import JobSpec
    from segbatch.planning.plan import Plan

_MAX_NAMES = 5


def existing_record(store: Store, overwrite: bool) -> RunRecord | None:
    """The run.json that a job finds in its output; None for a folder that is empty, or of no concern to it.

    Raises ``PlanError`` if the folder holds what segbatch did not write under names that the job would write, with
    ``overwrite`` too, and if it holds result files whose job is unknown.
    """
    existing = RunRecord.read(store)
    if existing is not None:
        return existing
    foreign = list(in_the_way(store))
    if foreign:
        raise PlanError(
            f"{store.uri}: is no output of segbatch (it holds no {RUN}), and files that segbatch did not write are in "
            f"the way: {', '.join(foreign[:_MAX_NAMES])}{', …' if len(foreign) > _MAX_NAMES else ''}; "
            "choose another --output"
        )
    if not overwrite and any(not name.startswith(".") for name in store.names(MASKS)):
        raise PlanError(
            f"{store.uri}: holds result files but no {RUN}, so the job that wrote them is unknown; "
            "choose another --output, or give --overwrite to remove these result files"
        )
    return None


def refuse_other_version(store: Store, existing: RunRecord, rows_version: int) -> None:
    """Raise ``PlanError`` if the output's rows are not those that this version of segbatch writes."""
    if existing.rows_version != rows_version:
        raise PlanError(
            f"{store.uri}: written by segbatch {existing.versions.get('segbatch', '?')} with rows version "
            f"{existing.rows_version}, this version of segbatch writes {rows_version}, whose rows differ; "
            "choose another --output, or resume with the segbatch that wrote it"
        )


def refuse_other(store: Store, existing: RunRecord, requested: RunRecord, spec: JobSpec) -> None:
    """Raise ``PlanError`` with what differs if the output holds the results of another job."""
    lines = differences(existing.deciding, requested.identity)
    if spec.chunk_size is not None and spec.chunk_size != existing.chunk_size:
        lines.append(f"chunk_size: {existing.chunk_size} in the output, {spec.chunk_size} in this job")
    if lines:
        shown = "\n  ".join(lines + _crf_remedy(existing.deciding, requested.identity, spec))
        raise PlanError(
            f"{store.uri}: holds the results of another job; what differs:\n  {shown}\n"
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


def changed_limits(existing: RunRecord, spec: JobSpec) -> list[str]:
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
        return []
    remedy = "" if spec.retry_errors else "; error rows that are committed stay, unless --retry-errors is given"
    return [f"the last run of this output had other limits: {'; '.join(changed)}{remedy}"]


def publish(plan: Plan) -> None:
    """Make the output ready for a run's commits: run.json is there, ``_SUCCESS`` is not."""
    if plan.fresh and plan.job.spec.overwrite:
        _take_over(plan.store, plan.record)
    else:
        establish(plan)
    plan.store.remove(SUCCESS)
    plan.record.claim.check(plan.store)
    if plan.retried:
        store, claim = plan.store, plan.record.claim
        rows = retire(store, plan.inventory.ledger, sorted(plan.retried), claim)
        plan.inventory = plan.inventory.again(store, claim, FileTable.of(rows))


def establish(plan: Plan) -> None:
    """Write run.json before any work, exactly once: whoever comes second plans again by what the first has fixed."""
    if plan.fresh and not plan.store.create(RUN, plan.record.to_bytes()):
        plan.adopt()
    note_latest(plan)
    settle_files(plan)


def note_latest(plan: Plan) -> None:
    """Keep in run.json how the latest run spells its inputs, and its limits: `verify` and `--repair` need both."""
    record, inputs = plan.record, plan.job.record().inputs
    spec = {**record.spec, **plan.job.spec.plain("limit")}
    if (record.inputs, record.spec) != (inputs, spec):
        record.claim.check(plan.store)
        plan.record = record.changed(inputs=inputs, spec=spec)
        plan.store.write(RUN, plan.record.to_bytes())


def settle_files(plan: Plan) -> None:
    """Move damaged files out of ``masks/``, and keep what was read of the others: the next run need not read them."""
    inventory = plan.inventory
    if inventory.damaged or not inventory.is_saved:
        plan.record.claim.check(plan.store)
        inventory.set_aside(plan.store)
        inventory.save(plan.store, plan.record.claim)


def _take_over(store: Store, record: RunRecord) -> None:
    """Replace run.json, and only then remove what another job left: that job, if it still runs, adds nothing more."""
    store.remove(SUCCESS)
    store.write(RUN, record.to_bytes())
    remove_owned(store, owned(store))


def describe_removal(store: Store) -> list[str]:
    """What ``publish`` with overwrite would remove, a line for each kind with the first names."""
    existing = [name for name in (RUN, SUCCESS) if store.exists(name)]
    lines = [f"{len(existing)} of the run itself: {', '.join(existing)}"] if existing else []
    for kind, names in owned(store).items():
        shown = ", ".join(names[:_MAX_NAMES])
        lines.append(f"{len(names):,} {kind}: {shown}{', …' if len(names) > _MAX_NAMES else ''}")
    return lines
