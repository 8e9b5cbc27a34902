"""What a process does when it is stopped, wherever its work is at that moment.

A signal is not raised into running code: inside Ray, an exception can come while a lock is held, and leave processes
behind. The command line (``cli.signals``) runs the callbacks on a thread of their own instead, and ends the process.
In a library call, signals are the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from segbatch.text import escape_lines, redact_text

Callback = Callable[[], str | None]

_callbacks: list[Callback] = []
_parents: list[int] = []


def process_id() -> int:
    """Return the id of the process to signal: that of the parent, where the command line runs in a child process."""
    return _parents[-1] if _parents else os.getpid()


def stops_with(parent: int) -> None:
    """Note that signals to this process have no effect, and that ``parent`` ends it."""
    _parents.append(parent)


def add(callback: Callback) -> None:
    """Register what to do at a stop.

    It runs on another thread while the work goes on, and must not wait for it. It may return a line for the user; an
    empty one means that the user has been informed.
    """
    _callbacks.append(callback)


def discard(callback: Callback) -> None:
    """Remove a callback, if it is registered."""
    if callback in _callbacks:
        _callbacks.remove(callback)


@contextmanager
def on_stop(callback: Callback) -> Iterator[None]:
    """Register ``callback`` for the length of the block."""
    add(callback)
    try:
        yield
    finally:
        discard(callback)


def run_callbacks() -> list[str]:
    """Run what is registered, the latest first, and return the lines for the user."""
    lines: list[str] = []
    for callback in reversed(list(_callbacks)):
        try:
            line = callback()
        except Exception as e:  # the end of the process: a callback that fails must not keep the others from running
            line = f"while stopping: {e}"
        if line is not None:
            lines.append(escape_lines(redact_text(line)))
    return lines
