"""Earlier dates of datasets by ``{date}``: files that were delivered late for them are done by a later night."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from segbatch.errors import MissingInput, PlanError, SourceError
from segbatch.operations.nightly.dataset import Work, prepare
from segbatch.operations.nightly.record import dates, read_night
from segbatch.output.output import Output
from segbatch.storage.store import Store


@dataclass(frozen=True)
class EarlierDate:
    """A dataset on an earlier date; ``entry`` is its name in the record of the night that looks back at it."""

    name: str
    date: datetime.date
    job: JobSpec

    @property
    def entry(self) -> str:
        return f"{self.name} {self.date}"


def earlier_dates(spec: NightlySpec, names: Sequence[str], night: datetime.date, state: Store) -> list[EarlierDate]:
    """The last ``lookback_days`` dates of each dataset that has a part of its own for each date, the last first.

    Left out are dates from before the first night of a dataset, if they have no output: only ``--date`` does these.
    """
    found = []
    for name in filter(spec.dated, names):
        outputs = {spec.job_of(name, night).output}
        for days in range(1, spec.lookback_days + 1):
            earlier = EarlierDate(name, day := night - datetime.timedelta(days), spec.job_of(name, day))
            if earlier.job.output not in outputs and _is_due(earlier, state):
                outputs.add(earlier.job.output)
                found.append(earlier)
    return found


def _is_due(earlier: EarlierDate, state: Store) -> bool:
    if Output.is_at(earlier.job.output, earlier.job.storage_options):
        return True
    nights = (read_night(state, d) for d in dates(state) if d <= earlier.date.isoformat())
    return any(night is not None and earlier.name in night.datasets for night in nights)


@dataclass(frozen=True)
class Lookback:
    """An earlier date of a dataset, and the work that is left of it, or the ``reason`` why it is left unchanged."""

    date: EarlierDate
    work: Work | None = None
    reason: str = ""


def look_back(date: EarlierDate, dry_run: bool = False) -> Lookback | None:
    """Plan an earlier date.

    It is left unchanged if its output has other settings, if its inputs are refused, or if some of them are gone: what
    was delivered is often moved away later, and the masks are kept.

    Args:
        date: The dataset and its date.
        dry_run: Write nothing.

    Returns:
        What is left of it; None if none of its inputs exist.

    Raises:
        SegbatchError: Something cannot be read now.
    """
    try:
        work = prepare(date.job, max_removed=1, dry_run=dry_run)
    except MissingInput:
        return None
    except (PlanError, SourceError) as e:
        return Lookback(date, reason=str(e))
    gone = [f"{gone:,} of its {total:,} {what}" for what, (gone, total) in work.vanished().items() if gone]
    if not gone:
        return Lookback(date, work)
    return Lookback(
        date,
        reason=f"{' and '.join(gone)} are gone from its inputs; `segbatch nightly CONFIG --date {date.date}` computes "
        "what is new there, and archives the masks of those",
    )
