"""Join the output of a plan before any work, and keep in it how the latest run was called."""

from __future__ import annotations

from segbatch.planning.plan import Plan, make_plan


def publish(plan: Plan) -> Plan:
    """Join the output, and prepare it for commits: with run.json, without ``_SUCCESS``.

    Returns:
        The plan to execute: another one if another first run of the output was faster.

    Raises:
        PlanError: That run has other settings.
    """
    if plan.is_first and plan.job.spec.overwrite:
        _check_precision(plan)
        plan.output.join(plan.record, overwrite=True)
    else:
        plan = establish(plan)
    plan.output.begin(plan.retried)
    return plan


def establish(plan: Plan) -> Plan:
    """Join the output: write run.json, exactly once, and set damaged files aside.

    Returns:
        The plan to execute: another one, by the run.json of another first run that was faster.
    """
    _check_precision(plan)
    if plan.is_first and not plan.output.join(plan.record):
        plan = make_plan(plan.job.spec.model_copy(update={"overwrite": False}), staged=plan.is_staged)
    keep_latest(plan)
    plan.output.clean()
    return plan


def _check_precision(plan: Plan) -> None:
    """Raise ``ValueError`` for a plan that would keep ``auto`` in run.json."""
    if plan.job.precision == "auto":
        raise ValueError("the precision of the plan is not chosen; call Plan.with_precision before")


def keep_latest(plan: Plan) -> None:
    """Keep in run.json how the latest run spells its inputs, and its limits: ``verify`` and ``repair`` use both."""
    limits = {**plan.output.record.spec, **plan.job.spec.plain("limit")}
    plan.output.update(inputs=plan.job.inputs, spec=limits)
