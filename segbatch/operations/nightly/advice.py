"""What to do about the alerts of a night: the errors behind them, and the commands to run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from segbatch.errors import SegbatchError
from segbatch.operations.nightly.record import DRIFT, EMPTY, ERRORS, DatasetReport, NextStep
from segbatch.results.dataset import MaskDataset, MaskRow
from segbatch.storage.uri import absolute

_MAX_SHARDS = 3
_MAX_TEXT = 300


@dataclass(frozen=True)
class Advice:
    """Adds next steps to the entries of one night.

    Attributes:
        spec: The configuration.
        config: Its file, for the commands.
    """

    spec: NightlySpec
    config: str

    def add(self, entry: DatasetReport, name: str, job: JobSpec, date: str) -> None:
        """Add examples of errors and the next steps to an entry with an exit code.

        Args:
            entry: The entry.
            name: The dataset.
            job: Its job on that date.
            date: The date of its inputs.
        """
        if entry.exit_code == ERRORS:
            entry.examples = _examples(job)
            steps = [NextStep(purpose="list the errors", command=self._on_output("errors", job))]
        elif entry.exit_code == EMPTY and entry.state == "empty":
            steps = [NextStep(purpose="when the inputs have arrived", command=self._night(name, date))]
        elif entry.exit_code == DRIFT:
            purpose = f"if the change is intended, set drift.reference_from: {date} in the configuration"
            steps = [
                NextStep(purpose="look at the classes", command=self._on_output("stats", job)),
                NextStep(purpose=purpose),
            ]
        elif entry.exit_code:
            purpose = "when that is corrected" if entry.exit_code == 2 else "run it again now; the next night does, too"
            steps = [NextStep(purpose=purpose, command=self._night(name, date))]
        else:
            steps = []
        entry.next_steps = steps

    def _on_output(self, command: str, job: JobSpec) -> str:
        words = ["segbatch", command, absolute(job.output)]
        return shlex.join([*words, "--storage-options", absolute(self.config)] if job.storage_options else words)

    def _night(self, name: str, date: str) -> str:
        words = ["segbatch", "nightly", absolute(self.config), "--dataset", name]
        if self.spec.dated(name):
            return shlex.join([*words, "--date", date])
        return shlex.join([*words, "--until", "none"] if self.spec.since else words)


def _examples(job: JobSpec) -> list[str]:
    """Return why the first shards failed as a whole, or else the first error row of an output."""
    try:
        dataset = MaskDataset.open(job.output, storage_options=job.storage_options)
        if dataset.totals.failed_shards:
            dataset.output.load()
            return [message[:_MAX_TEXT] for message in dataset.output.failed_shards()[:_MAX_SHARDS]]
        return [_line(row) for row in dataset.errors(1)]
    except SegbatchError as e:
        return [f"(the errors cannot be read now: {e})"]


def _line(row: MaskRow) -> str:
    assert row.error is not None
    return f"{row.image_id}: {row.error.stage}/{row.error.type}: {row.error.message}"[:_MAX_TEXT]
