"""Progress for people: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress

from segbatch.logs import event
from segbatch.output.receipt import Receipt
from segbatch.planning.plan import Plan
from segbatch.planning.pools import Pools
from segbatch.planning.progress import Progress

logger = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 5.0


class LogProgress(Progress):
    """A line every few seconds, with the time of day."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = 0.0

    def start(self, plan: Plan, pools: Pools) -> None:
        super().start(plan, pools)
        self._say(f"{self.guessed}{self.total - self.done} of {self.total} chunks to do; {pools.describe()}")

    def show(self) -> None:
        if self.computed and (self.done >= self.total or time.monotonic() - self._last >= _LOG_EVERY_SECONDS):
            self._last = time.monotonic()
            self._say(f"chunk {self.done}/{self.total}: {self.status()}")

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}")

    def _say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True)


class BarProgress(Progress):
    """A bar that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            SpinnerColumn(),
            BarColumn(bar_width=30),
            TextColumn("{task.completed}/{task.total} chunks  {task.fields[status]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, status="starting workers")

    def start(self, plan: Plan, pools: Pools) -> None:
        self._bar.start()
        super().start(plan, pools)

    def warn(self, text: str) -> None:
        self._bar.console.print(f"warning: {text}", highlight=False, soft_wrap=True, markup=False)

    def show(self) -> None:
        status = self.status() if self.computed else "starting workers"
        self._bar.update(self._task, completed=self.done, total=self.total, status=status)

    def stop(self) -> None:
        self._bar.stop()


class EventProgress(Progress):
    """An event for each chunk, for structured logs."""

    def start(self, plan: Plan, pools: Pools) -> None:
        super().start(plan, pools)
        event(logger, logging.INFO, "the work begins", **self._chunks_now(), workers=pools.describe())

    def advance(self, receipt: Receipt) -> None:
        super().advance(receipt)
        sums = {"records": receipt.totals.records, "errors": receipt.totals.failed}
        event(logger, logging.INFO, "a chunk is done", chunk=receipt.filename, **sums, **self._chunks_now())

    def _chunks_now(self) -> dict[str, int]:
        return {"chunks_done": self.done, "chunks_total": self.total}


def progress_for(console: Console, log_format: str = "text") -> Progress:
    """A bar on a terminal, lines elsewhere, events where logs are structured."""
    if log_format == "json":
        return EventProgress()
    return BarProgress(console) if console.is_terminal else LogProgress(console)
