"""Decide the date, the hours and the datasets of a nightly run."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segbatch.config.nightly import Hours, NightlySpec
from segbatch.errors import SpecError
from segbatch.operations.nightly.lookback import EarlierDate, earlier_dates
from segbatch.operations.nightly.metrics_file import check_metrics_file
from segbatch.storage.store import Store


@dataclass(frozen=True)
class Schedule:
    """One nightly run.

    Attributes:
        spec: The configuration, with another deadline if one was given.
        hours: The night in which it starts.
        date: The date that it computes.
        names: Its datasets.
        is_backfill: Whether a date was given: earlier dates are not checked for late files then.
    """

    spec: NightlySpec
    hours: Hours
    date: datetime.date
    names: list[str]
    is_backfill: bool

    @staticmethod
    def of(
        spec: NightlySpec,
        date: datetime.date | None,
        only: Sequence[str],
        until: str | None,
        clock: Callable[[], float],
    ) -> Schedule:
        """Resolve the options of the command. Raises ``SpecError``."""
        spec = spec if until is None else spec.ending(until)
        check_metrics_file(spec)
        hours = spec.hours(clock())
        if date is not None and date > hours.date:
            raise SpecError(f"--date: {date} is in the future, today's night is {hours.date}; give an earlier date")
        names = select_datasets(spec, only, date if date != hours.date else None)
        return Schedule(spec, hours, date or hours.date, names, date is not None)

    @property
    def is_tonight(self) -> bool:
        """Whether the date is that of the hours, and no backfill of an earlier one."""
        return self.date == self.hours.date

    def late(self, state: Store) -> list[EarlierDate]:
        """Return the earlier dates whose inputs may have late files, the last first."""
        return [] if self.is_backfill else earlier_dates(self.spec, self.names, self.hours.date, state)


def select_datasets(spec: NightlySpec, only: Sequence[str], other_date: datetime.date | None) -> list[str]:
    """Return the names of the datasets to compute.

    Args:
        spec: The configuration.
        only: Names that were given; all datasets unless given.
        other_date: A date that is backfilled: only datasets with a part for each date have it.

    Raises:
        SpecError: There is no such dataset, or none has that date.
    """
    for name in only:
        if name not in spec.datasets:
            raise SpecError(f"--dataset: there is no {name!r}; there are {', '.join(spec.datasets)}")
    names = [n for n in spec.datasets if not only or n in only]
    if other_date is None:
        return names
    dated = [n for n in names if spec.dated(n)]
    if not dated:
        raise SpecError(
            f"--date: {', '.join(names)} cannot be backfilled by date, without {{date}} in inputs and output; leave "
            "--date out to compute whatever is new"
        )
    return dated
