"""Signals: the command runs in a child process; the parent only waits, and ends it and all that it has started.

The child and what it starts are a process group of their own, since a signal to Ray's processes would end the child
before it has said anything. On SIGINT, SIGTERM or SIGHUP the parent freezes the processes that the command has started,
so that they commit nothing more, and informs the child through a pipe. A thread of the child runs the callbacks of
``segbatch.stopping``, writes their lines and ends the process; the parent then kills what is left. Orphans become
children of the parent, so that none escapes it. After another signal, or if the child takes too long, the parent kills
the child as well.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from segbatch import stopping
from segbatch.processes import adopt_orphans, children_by_parent, end_with_parent

_STOP_SECONDS = 10.0
_AGAIN_SECONDS = 1.0
_KILL_SECONDS = 5.0


def supervised(command: Callable[[], None]) -> None:
    """Run ``command`` in a child process, and exit with its code, or with 128 + the number of the signal."""
    # One that is ignored stays ignored: under nohup, and in the background jobs of a script.
    stops = {s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN}
    adopt_orphans()
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*stops, signal.SIGTSTP, signal.SIGCHLD})
    child = os.fork()
    if child:
        os.close(reader)
        sys.exit(_wait_for(child, writer, stops))
    os.close(writer)
    end_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    stopping.stops_with(parent)
    os.setpgid(0, 0)
    for number in (signal.SIGTTOU, signal.SIGTTIN):  # a group in the background writes to the terminal; reading fails
        signal.signal(number, signal.SIG_IGN)
    for number in stops:
        signal.signal(number, lambda number, _: os.kill(parent, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    stderr = os.dup(2)  # descriptor 2 leads elsewhere while Ray starts
    threading.Thread(target=_stop_on_request, args=(reader, stderr), name="segbatch-stop", daemon=True).start()
    command()


def _stop_on_request(reader: int, stderr: int) -> None:
    """End the child when the parent requests it, wherever its main thread is."""
    if requested := os.read(reader, 1):
        for line in filter(None, stopping.run_callbacks() or ["stopped"]):
            _say(line, stderr)
        os._exit(128 + requested[0])


def _wait_for(child: int, writer: int, stops: set[signal.Signals]) -> int:
    """Wait for the end of the child, in the parent, and kill what it leaves. Returns the exit code."""
    requested: int | None = None
    deadline: float | None = None
    begun = 0.0
    while (status := _reap(child)) is None:
        number = _next_signal({*stops, signal.SIGTSTP, signal.SIGCHLD}, deadline)
        if number == signal.SIGCHLD:
            continue
        if number == signal.SIGTSTP:
            _suspend()
        elif requested is None:
            begun = time.monotonic()
            requested, deadline = number, begun + _STOP_SECONDS
            _signal_descendants(signal.SIGSTOP, spare=child)
            with suppress(OSError):  # it has just ended
                os.write(writer, bytes([requested or 0]))
        elif deadline is not None and time.monotonic() > begun + _AGAIN_SECONDS:  # another signal, or the time is over
            deadline = None
            _say("stopped; committed chunks are kept, the same command resumes")
            os.kill(child, signal.SIGKILL)
    _kill_descendants()
    code = os.waitstatus_to_exitcode(status)
    if requested is not None:
        return 128 + requested if code in (1, -signal.SIGKILL) else code
    if code < 0:
        cause = "; is memory short?" if -code == signal.SIGKILL else ""
        name = signal.Signals(-code).name
        _say(f"error: the process was ended by {name}{cause}; committed chunks are kept, the same command resumes")
        return 1
    return code


def _suspend() -> None:
    """Suspend all processes of the command, as a terminal does for Ctrl-Z, until this one is continued."""
    _signal_descendants(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    _signal_descendants(signal.SIGCONT)


def _next_signal(signals: set[signal.Signals], deadline: float | None) -> int | None:
    """Wait for one of ``signals``, which are blocked; None when the time is over."""
    if deadline is None:
        return signal.sigwait(signals)
    received = signal.sigtimedwait(signals, max(0.0, deadline - time.monotonic()))
    return received.si_signo if received else None


def _reap(child: int) -> int | None:
    """Collect all children that have ended; return the status of ``child`` if it is one of them."""
    found = None
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == child:
                found = status
    return found


def _kill_descendants() -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while _signal_descendants(signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(0.02)
        _reap(0)


def _signal_descendants(number: signal.Signals, spare: int = 0) -> int:
    """Send a signal to every process below this one, except ``spare``; return how many these are."""
    processes = [pid for pid in _descendants(os.getpid()) if pid != spare]
    for pid in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(processes)


def _descendants(root: int) -> list[int]:
    children = children_by_parent()
    found, below = [], list(children.get(root, ()))
    while below:
        pid = below.pop()
        found.append(pid)
        below += children.get(pid, ())
    return found


def _say(line: str, stderr: int = 2) -> None:
    """Write a line to stderr without the locks of Python's stream; on a terminal it begins a new one, after ``^C``."""
    with suppress(OSError):
        os.write(stderr, f"{chr(10) if os.isatty(stderr) else ''}{line}\n".encode("utf-8", "replace"))
