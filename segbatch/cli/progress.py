"""Progress for people: a bar on a terminal, elsewhere a line every few seconds; for programs an event per chunk."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from segbatch import stopping
from segbatch.cli.terminal import log
from segbatch.logs import LogReporter, event
from segbatch.protocols import Progress, Reporter
from segbatch.text import counted, duration, escape_lines, redact_text

logger = logging.getLogger(__name__)

_REPEAT_SECONDS = 5.0
_LONG_PHASE_SECONDS = 60.0  # after which lines are rarer
_RARER = 6
_BAR_WIDTH, _MIN_BAR_WIDTH = 30, 8


class Work(Protocol):
    """What is being done now.

    Attributes:
        done, total: Steps; ``total`` is 0 if they are not counted.
        begun: When it began, in monotonic seconds.
    """

    done: int
    total: int
    begun: float

    def parts(self) -> list[str]:
        """Its state, the most important part first."""
        ...


class Phase:
    """Work before or beside the chunks of a run."""

    def __init__(self, name: str, total: int = 0) -> None:
        self.name, self.total, self.done, self.begun = name, total, 0, time.monotonic()

    def parts(self) -> list[str]:
        """``searching: 120 of at most 327``, ``at most 40 s left``."""
        seconds = time.monotonic() - self.begun
        if not self.total:
            return [self.name if seconds < 1 else f"{self.name}: {duration(seconds)}"]
        left = [f"at most {duration((self.total - self.done) * seconds / self.done)} left"] if self.done else []
        return [f"{self.name}: {self.done:,} of at most {self.total:,}", *left]


class Chunks:
    """The chunks of a run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.done, self.total, self.begun = progress.done, progress.total, time.monotonic()

    def parts(self) -> list[str]:
        """``12/60 chunks``, ``40 s left``, ``3 errors``, ``1,200 images``, ``85.1/s``."""
        progress = self._progress
        left, rate = progress.seconds_left, progress.records_per_second
        if progress.done >= progress.total:  # the whole run, its start included
            left, rate = None, progress.records / max(1e-6, progress.seconds)
        parts = [f"{progress.done:,}/{progress.total:,} chunks"]
        if left is not None:
            parts.append(f"{'at most ' if progress.is_bound else ''}{duration(max(1, left))} left")
        parts += [counted(progress.errors, "error"), counted(progress.records, "image")]
        if rate is not None:  # a large network takes seconds per image on a CPU
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{rate:.2g}/s")
        return parts


class ConsoleReporter(Reporter):
    """Prints messages and warnings."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def message(self, text: str) -> None:
        self._print(text)

    def warning(self, text: str) -> None:
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        self._console.print(escape_lines(redact_text(text)), highlight=False, soft_wrap=True, markup=False)


class LineReporter(ConsoleReporter):
    """A line with the time of day when a phase begins, then every few seconds, also while nothing advances."""

    def __init__(self, console: Console, every_seconds: float = _REPEAT_SECONDS) -> None:
        super().__init__(console)
        self._every_seconds = every_seconds
        self._last = 0.0
        self._work: Work | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def phase(self, name: str, total: int = 0) -> None:
        self._work = Phase(name, total)
        self._line(name)
        if self._thread is None:
            self._closed.clear()
            self._thread = threading.Thread(target=self._repeat, name="segbatch-progress", daemon=True)
            self._thread.start()

    def advanced(self, steps: int = 1) -> None:
        if self._work is not None:
            self._work.done += steps

    def planned(self, progress: Progress, workers: str) -> None:
        self.phase(_to_do(progress))

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        is_first = not isinstance(self._work, Chunks)
        self._work = Chunks(progress)
        is_due = time.monotonic() - self._last >= self._every_seconds
        if is_first or is_due or progress.done >= progress.total:
            self._line(", ".join(self._work.parts()))

    def closed(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = self._work = None

    def _repeat(self) -> None:
        while not self._closed.wait(self._every_seconds):
            work, now = self._work, time.monotonic()
            if work is None:
                continue
            is_rarer = isinstance(work, Chunks) or now - work.begun > _LONG_PHASE_SECONDS
            if now - self._last >= self._every_seconds * (_RARER if is_rarer else 0.5):
                self._line(", ".join(work.parts()))

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True, markup=False)


class BarReporter(ConsoleReporter):
    """A bar that is redrawn in place; that of a run stays in its last state."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar: Bar | None = None
        self._work: Work = Phase("")

    def phase(self, name: str, total: int = 0) -> None:
        self._show(Phase(name, total))

    def advanced(self, steps: int = 1) -> None:
        self._work.done += steps
        self._show(self._work)

    def planned(self, progress: Progress, workers: str) -> None:
        self.phase(_to_do(progress))

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        self._show(Chunks(progress))

    def closed(self) -> None:
        if self._bar is not None:
            self._bar.columns = self._bar.columns[1:]  # no spinner stays
            self._bar.live.transient = not isinstance(self._work, Chunks)
            self._bar.stop()
            stopping.discard(_show_cursor)
        self._bar = None

    def _show(self, work: Work) -> None:
        self._work = work
        if self._bar is None:
            bar = BarColumn(bar_width=None, table_column=Column(max_width=_BAR_WIDTH))
            # Not stdout: results go where the user sends them.
            self._bar = Bar(SpinnerColumn(), bar, _Status(self), console=self._console, redirect_stdout=False)
            self._bar.add_task("")
            stopping.add(_show_cursor)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=work.done, total=work.total or None)

    def text(self) -> str:
        """The parts of the state that fit beside the bar on one line, at least the first one."""
        width = self._console.width - _MIN_BAR_WIDTH - len("⠋  ")
        shown, *others = self._work.parts()
        for part in others:
            if len(f"{shown}, {part}") > width:
                break
            shown = f"{shown}, {part}"
        return shown


def _show_cursor() -> None:
    """Show the cursor, which a bar hides, where a signal ends the process. Takes no lock of rich."""
    os.write(sys.stderr.fileno(), b"\x1b[?25h")


class _Status(ProgressColumn):
    """The state of the work, with the time as it is when the line is redrawn."""

    def __init__(self, reporter: BarReporter) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._reporter = reporter

    def render(self, task: Task) -> Text:
        return Text(self._reporter.text())


def _to_do(progress: Progress) -> str:
    about = "about " if progress.is_estimate else ""
    return f"{about}{progress.total - progress.done:,} of {progress.total:,} chunks to do, starting workers"


class EventReporter(LogReporter):
    """An event per phase and per chunk, for structured logs."""

    def phase(self, name: str, total: int = 0) -> None:
        event(logger, logging.INFO, "phase started", phase=name)

    def planned(self, progress: Progress, workers: str) -> None:
        event(logger, logging.INFO, "work started", **_chunks(progress), workers=workers)

    def committed(self, chunk: str, records: int, errors: int, progress: Progress) -> None:
        sums = {"records": records, "errors": errors}
        event(logger, logging.INFO, "chunk finished", chunk=chunk, **sums, **_chunks(progress))


def _chunks(progress: Progress) -> dict[str, int]:
    return {"chunks_done": progress.done, "chunks_total": progress.total}


class QuietReporter(ConsoleReporter):
    """Warnings alone."""

    def message(self, text: str) -> None:
        pass


def reporter_for(console: Console, log_format: str = "text", is_quiet: bool = False) -> Reporter:
    """A bar on a terminal, lines elsewhere, events where logs are structured."""
    if log_format == "json":
        return EventReporter()
    if is_quiet:
        return QuietReporter(console)
    # FORCE_COLOR calls any file a terminal, and TERM=dumb cannot redraw a line.
    is_redrawn = console.is_interactive and not console.is_dumb_terminal and console.file.isatty()
    return BarReporter(console) if is_redrawn else LineReporter(console)


@contextmanager
def reporting(phase: str, log_format: str = "text", is_quiet: bool = False) -> Iterator[Reporter]:
    """Report on stderr that ``phase`` begins, and whatever follows within the block."""
    reporter = reporter_for(log, log_format, is_quiet)
    reporter.phase(phase)
    try:
        yield reporter
    finally:
        reporter.closed()
