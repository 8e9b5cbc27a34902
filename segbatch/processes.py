"""Processes of this machine by /proc, and a process that ends with its parent."""

from __future__ import annotations

import ctypes
import signal
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Stat(NamedTuple):
    """Of a process or thread: its state, the id of its parent, and its start in clock ticks since the boot."""

    state: str
    parent: int
    started: int


def stat_of(folder: Path) -> Stat:
    """Read the file ``stat`` of a folder in /proc, see proc(5).

    Raises:
        OSError, ValueError, IndexError: It has ended, or /proc hides it.
    """
    # The name of the program, in parentheses, may contain anything.
    values = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return Stat(values[0], int(values[1]), int(values[19]))


def children_by_parent() -> dict[int, list[int]]:
    """Return the ids of all processes by that of their parent."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            children.setdefault(stat_of(folder).parent, []).append(int(folder.name))
        except (OSError, ValueError, IndexError):  # it has ended
            continue
    return children


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
