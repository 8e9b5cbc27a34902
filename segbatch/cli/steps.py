"""Progress of work that is counted in steps: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress

from segbatch.planning.progress import Steps

_LOG_EVERY_SECONDS = 10.0


class LogSteps(Steps):
    """A line every few seconds with the time of day, also where nothing advances."""

    def __init__(self, console: Console, every_seconds: float = _LOG_EVERY_SECONDS) -> None:
        super().__init__()
        self._console, self._every_seconds = console, every_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, name="segbatch-steps", daemon=True)

    def __enter__(self) -> Steps:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self._console.print(f"{time.strftime('%H:%M:%S')} {self.status()}", highlight=False, soft_wrap=True)


class BarSteps(Steps):
    """A bar that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"), console=console, transient=True
        )
        self._task = self._bar.add_task("", total=None)
        super().__init__()

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def begin(self, phase: str, total: int = 0) -> None:
        super().begin(phase, total)
        self._show()

    def advance(self, steps: int = 1) -> None:
        super().advance(steps)
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.done, total=self.total or None, description=self.status())


def steps_for(console: Console) -> Steps:
    """A bar on a terminal, lines elsewhere."""
    return BarSteps(console) if console.is_terminal else LogSteps(console)
