"""Progress for people: a bar on a terminal, elsewhere a line every few seconds; for programs an event per chunk."""

from __future__ import annotations

import logging
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from segbatch.logs import LogReporter, event
from segbatch.protocols import Progress, Reporter
from segbatch.text import duration, escape_lines, redact_text

logger = logging.getLogger(__name__)

_CHUNKS_EVERY_SECONDS = 5.0
_STEPS_EVERY_SECONDS = 10.0


class Phase:
    """Work that is counted in steps. ``total`` is 0 if its steps are not counted."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done, self._begun = name, total, 0, time.monotonic()

    def status(self) -> str:
        """``searching: 120 of at most 327, at most 40 s left``."""
        seconds = time.monotonic() - self._begun
        if not self.total:
            return f"{self.name}: {duration(seconds)}"
        left = f", at most {duration((self.total - self.done) * seconds / self.done)} left" if self.done else ""
        return f"{self.name}: {self.done} of at most {self.total}{left}"


def run_status(progress: Progress) -> str:
    """``1200 images, 85.1/s, 3 errors, 40 s left``."""
    remaining = progress.total - progress.done
    left = f", {duration(remaining * progress.seconds / progress.computed)} left" if progress.computed else ""
    rate = progress.records / max(1e-6, progress.seconds)
    # A large network takes seconds per image on a CPU.
    shown = f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
    return f"{progress.records} images, {shown}/s, {progress.errors} errors{left}"


class ConsoleReporter(Reporter):
    """Prints messages and warnings."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def message(self, text: str) -> None:
        self._console.print(escape_lines(redact_text(text)), highlight=False, soft_wrap=True, markup=False)

    def warning(self, text: str) -> None:
        self.message(f"warning: {text}")


class LineReporter(ConsoleReporter):
    """A line with the time of day every few seconds; phases report themselves also while nothing advances."""

    def __init__(self, console: Console, every_seconds: float = _STEPS_EVERY_SECONDS) -> None:
        super().__init__(console)
        self._every_seconds = every_seconds
        self._last = 0.0
        self._phase: Phase | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def phase(self, name: str, total: int = 0) -> None:
        self._phase = Phase(name, total)
        if self._thread is None:
            self._closed.clear()
            self._thread = threading.Thread(target=self._report, name="segbatch-progress", daemon=True)
            self._thread.start()

    def advanced(self, steps: int = 1) -> None:
        if self._phase is not None:
            self._phase.done += steps

    def planned(self, progress: Progress, workers: str) -> None:
        about = "about " if progress.is_estimate else ""
        self._line(f"{about}{progress.total - progress.done} of {progress.total} chunks to do; {workers}")

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        if progress.done >= progress.total or time.monotonic() - self._last >= _CHUNKS_EVERY_SECONDS:
            self._last = time.monotonic()
            self._line(f"chunk {progress.done}/{progress.total}: {run_status(progress)}")

    def closed(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = self._phase = None

    def _report(self) -> None:
        while not self._closed.wait(self._every_seconds):
            if self._phase is not None:
                self._line(self._phase.status())

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True)


class BarReporter(ConsoleReporter):
    """A bar that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar: Bar | None = None
        self._phase: Phase | None = None

    def phase(self, name: str, total: int = 0) -> None:
        self._phase = Phase(name, total)
        self._show(0, total, self._phase.status())

    def advanced(self, steps: int = 1) -> None:
        if self._phase is not None:
            self._phase.done += steps
            self._show(self._phase.done, self._phase.total, self._phase.status())

    def planned(self, progress: Progress, workers: str) -> None:
        self._show_run(progress, "starting workers")

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        self._show_run(progress, run_status(progress))

    def closed(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._phase = None

    def _show_run(self, progress: Progress, status: str) -> None:
        self._show(progress.done, progress.total, f"{progress.done}/{progress.total} chunks  {status}")

    def _show(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task("")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total or None, description=text)


class EventReporter(LogReporter):
    """An event per chunk, for structured logs."""

    def planned(self, progress: Progress, workers: str) -> None:
        event(logger, logging.INFO, "work started", **_chunks(progress), workers=workers)

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        sums = {"records": records, "errors": errors}
        event(logger, logging.INFO, "chunk finished", chunk=chunk, **sums, **_chunks(progress))


def _chunks(progress: Progress) -> dict[str, int]:
    return {"chunks_done": progress.done, "chunks_total": progress.total}


def reporter_for(console: Console, log_format: str = "text") -> Reporter:
    """A bar on a terminal, lines elsewhere, events where logs are structured."""
    if log_format == "json":
        return EventReporter()
    return BarReporter(console) if console.is_terminal else LineReporter(console)
