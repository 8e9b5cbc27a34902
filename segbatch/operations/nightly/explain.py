"""What a nightly run would do, without doing it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence

from segbatch.config.nightly import NightlySpec
from segbatch.operations.nightly.dataset import describe
from segbatch.operations.nightly.delivery import plan_delivered
from segbatch.operations.nightly.lookback import look_back
from segbatch.operations.nightly.record import utc
from segbatch.operations.nightly.schedule import Schedule
from segbatch.storage.lease import holder
from segbatch.storage.store import Store
from segbatch.text import redact


def explain(
    spec: NightlySpec,
    *,
    date: datetime.date | None = None,
    only: Sequence[str] = (),
    until: str | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """Describe what ``run_night`` would do now. Writes nothing. Raises what it would raise before any work."""
    schedule = Schedule.of(spec, date, only, until, clock)
    spec, hours = schedule.spec, schedule.hours
    state = Store(spec.state, spec.storage_options)
    deadline = f", until {utc(hours.deadline)}" if hours.deadline is not None else ""
    lines = [
        f"{'night':13}{schedule.date}{deadline}{'' if hours.has_begun else '; not now: it is not night'}",
        f"{'lease':13}{holder(state, clock) or 'free'}",
    ]
    for name in schedule.names:
        work, absent = plan_delivered(spec, name, schedule.date, state, dry_run=True)
        if work is not None:
            lines.append(f"{name:13}{describe(work.counts())}; output {work.output.uri}")
        if absent:
            lines.append(f"{name:13}nothing is there: {', '.join(map(redact, absent))}")
    for late in schedule.late(state):
        lookback = look_back(late, spec, state, dry_run=True)
        if lookback is not None and lookback.work is not None:
            lines.append(f"{late.entry:13} {describe(lookback.work.counts())}; output {lookback.work.output.uri}")
        elif lookback is not None:
            lines.append(f"{late.entry:13} is left unchanged: {lookback.reason}")
    return "\n".join(lines)
