"""The identity of a process on this host, by which another process proves that it has ended."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from segbatch.processes import PROC, stat_of

_DEAD = "ZX"  # states of tasks that have ended and are not waited for yet


@dataclass(frozen=True)
class ProcessIdentity:
    """Where a process runs, and which one it is there.

    Attributes:
        host: Name of the host or container.
        boot: Random id of the boot of its kernel.
        namespaces: Those that ids of processes and times of start refer to; a container has separate ones.
        pid: Its id.
        started: Its time of start in clock ticks since the boot: ids are used again, also after a restart of a service.
    """

    host: str
    boot: str
    namespaces: str
    pid: int
    started: int

    @staticmethod
    def current() -> ProcessIdentity | None:
        """Return the identity of this process; None where /proc does not tell."""
        pid = os.getpid()
        try:
            if os.readlink(PROC / "self") != str(pid):  # /proc of another namespace than that of this process
                return None
            boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
            namespaces = " ".join(map(_namespace, ("pid", "time")))
            return ProcessIdentity(socket.gethostname(), boot, namespaces, pid, stat_of(PROC / str(pid)).started)
        except (OSError, ValueError, IndexError):
            return None

    def is_gone(self) -> bool:
        """Whether the process has certainly ended. False if it runs, or is of another host, boot or container."""
        observer = ProcessIdentity.current()
        if observer is None or observer._surroundings != self._surroundings:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is another user's
        try:
            folder = PROC / str(self.pid)
            if stat_of(folder).started != self.started:
                return True
            return all(stat_of(task).state in _DEAD for task in (folder / "task").iterdir())
        except (OSError, ValueError, IndexError):  # it ended just now, or /proc hides it
            return False

    @property
    def _surroundings(self) -> tuple[str, str, str]:
        return self.host, self.boot, self.namespaces


def _namespace(kind: str) -> str:
    try:
        return os.readlink(PROC / "self/ns" / kind)
    except FileNotFoundError:  # Linux has namespaces of time since 5.6
        return ""
