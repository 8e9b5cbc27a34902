"""Find late files: earlier dates of datasets with ``{date}``, whose inputs may have grown since."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from segbatch.errors import MissingInput, PlanError, SourceError
from segbatch.operations.nightly.dataset import Work
from segbatch.operations.nightly.delivery import plan_delivered
from segbatch.operations.nightly.reports import dates, read_night
from segbatch.output.output import Output
from segbatch.storage.store import Store


@dataclass(frozen=True)
class EarlierDate:
    """A dataset on an earlier date.

    Attributes:
        name: The dataset.
        date: The date.
        job: Its job on that date.
    """

    name: str
    date: datetime.date
    job: JobSpec

    @property
    def entry(self) -> str:
        """Its name in the report of the night that finds late files for it."""
        return f"{self.name} {self.date}"


def earlier_dates(spec: NightlySpec, names: Sequence[str], night: datetime.date, state: Store) -> list[EarlierDate]:
    """Return the last ``lookback_days`` dates of each dataset with a part for each date, the last first.

    Dates before the first night of a dataset are left out if they have no output: only ``--date`` computes these.
    """
    dates_back = []
    for name in filter(spec.dated, names):
        outputs = {spec.job_of(name, night).output}
        for days in range(1, spec.lookback_days + 1):
            earlier = EarlierDate(name, day := night - datetime.timedelta(days), spec.job_of(name, day))
            if earlier.job.output not in outputs and _has_started(earlier, state):
                outputs.add(earlier.job.output)
                dates_back.append(earlier)
    return dates_back


def _has_started(earlier: EarlierDate, state: Store) -> bool:
    if Output.is_at(earlier.job.output, earlier.job.storage_options):
        return True
    nights = (read_night(state, d) for d in dates(state) if d <= earlier.date.isoformat())
    return any(night is not None and earlier.name in night.datasets for night in nights)


@dataclass(frozen=True)
class Lookback:
    """An earlier date of a dataset, and what is left of it.

    Attributes:
        date: The dataset and its date.
        work: What is left of it.
        reason: Why it is left unchanged, if it is.
    """

    date: EarlierDate
    work: Work | None = None
    reason: str = ""


def look_back(date: EarlierDate, spec: NightlySpec, state: Store, dry_run: bool = False) -> Lookback | None:
    """Plan an earlier date.

    It is left unchanged if its output has other settings, if its inputs are refused, or if some of them are gone: what
    was delivered is often moved away later, and the masks are kept.

    Args:
        date: The dataset and its date.
        spec: The configuration.
        state: Where the reports are.
        dry_run: Write nothing.

    Returns:
        What is left of it; None if its inputs do not exist.

    Raises:
        SegbatchError: Something cannot be read now.
    """
    try:
        work, _ = plan_delivered(spec, date.name, date.date, state, dry_run, max_removed=1)
    except MissingInput:
        return None
    except (PlanError, SourceError) as e:
        return Lookback(date, reason=str(e))
    if work is None:
        return None
    gone = [f"{gone:,} of its {total:,} {what}" for what, (gone, total) in work.vanished().items() if gone]
    if not gone:
        return Lookback(date, work)
    return Lookback(
        date,
        reason=f"{' and '.join(gone)} are gone from its inputs; `segbatch nightly CONFIG --date {date.date}` computes "
        "what is new there, and archives the masks of those",
    )
