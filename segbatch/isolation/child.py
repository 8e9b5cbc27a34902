"""A process of its own for a stage, which may die of a record: its parent learns of what. Knows nothing of Ray."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from segbatch.causes import lost_gpu
from segbatch.errors import NetworkError
from segbatch.isolation.watch import Limits, resident
from segbatch.protocols import Stage, Watch
from segbatch.records import Chunk

_POLL_SECONDS = 0.05
_BUILD_SECONDS = 600.0
# Sent by people, by the system when memory is short, when a machine goes down: they accuse no record.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Death:
    """How a cell ended: ``cause`` in words that do not depend on when and where; ``kind``: crash, killed, time, memory.

    ``stages`` tells of each record that it had in hand, by place, at which stage. ``ready`` is whether it had survived
    the canary.
    """

    kind: str
    cause: str
    stages: dict[int, str]
    ready: bool


class Cell:
    """A child process with a stage in it. ``run`` returns what the stage does, or the ``Death`` of the process."""

    def __init__(self, build: Callable[[], Stage], limits: Limits) -> None:
        self._limits = limits
        self.runs = 0
        self._connection, theirs = Pipe()
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from segbatch.isolation.child import main; main()", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._ready = False
        with suppress(OSError):  # it died already: the first run tells
            self._connection.send_bytes(pickle.dumps(build))

    def run(self, chunk: Chunk) -> Chunk | Death:
        """Raises what the stage raised."""
        if not self._ready:
            outcome = self._wait(_BUILD_SECONDS)
            if isinstance(outcome, Death):
                return outcome
            self._ready = True
        self.runs += 1
        with suppress(OSError):
            self._connection.send(chunk)
        return self._wait(self._limits.stall_seconds)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _wait(self, seconds: float) -> Any:
        """What the child answers, or its death."""
        hand: dict[int, tuple[str, float]] = {}
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self._connection.poll(_POLL_SECONDS):
                    kind, *content = self._connection.recv()
                    if kind == "done":
                        return content[0]
                    if kind == "raised":
                        raise content[0]
                    if kind == "lost":
                        return self._death("crash", content[0], hand)
                    if kind == "begin":
                        stage, positions, pixels = content
                        hand.update(dict.fromkeys(positions, (stage, pixels / max(1, len(positions)))))
                    else:
                        for position in content[0]:
                            hand.pop(position, None)
                    pixels = int(sum(share for _, share in hand.values()))
                    deadline = time.monotonic() + max(seconds, self._limits.seconds(pixels))
            except (EOFError, OSError, pickle.UnpicklingError):
                return self._death(*_ending(self._process.wait()), hand)
            memory = resident(self._process.pid)
            if self._limits.memory is not None and (memory or 0) > self._limits.memory:
                return self._death("memory", "took more memory than a worker may hold (max_worker_bytes)", hand)
            if time.monotonic() > deadline:
                return self._death("time", "was not finished within the time limit (stall_seconds)", hand)

    def _death(self, kind: str, cause: str, hand: dict[int, tuple[str, float]]) -> Death:
        self.close()
        return Death(kind, cause, {position: stage for position, (stage, _) in hand.items()}, self._ready)


def _ending(code: int) -> tuple[str, str]:
    if code >= 0:
        return "crash", f"ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return ("killed" if -code in _FROM_OUTSIDE else "crash"), f"ended its process by {name}"


class _Teller(Watch):
    """Tells the parent, which still reads it when this process is dead."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def begin(self, stage: str, positions: Sequence[int], pixels: int) -> None:
        with self._lock:
            self._connection.send(("begin", stage, list(positions), pixels))

    def end(self, positions: Sequence[int]) -> None:
        with self._lock:
            self._connection.send(("end", list(positions)))


def main() -> None:
    """The child: builds the stage, proves it on the canary, then does what it is given until its parent is gone."""
    _alone()
    connection = Connection(int(sys.argv[1]))
    watch = _Teller(connection)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            stage: Stage = pickle.loads(connection.recv_bytes())()
            with suppress(NetworkError):  # wrong scores are no danger: the records' own are checked
                stage(stage.canary(), watch)
            connection.send(("done", None))
            while True:
                connection.send(("done", stage(connection.recv(), watch)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as e:
            if lost_gpu(e):
                connection.send(("lost", f"lost the GPU: {str(e).splitlines()[0]}"))
            else:
                connection.send(("raised", _portable(e)))


def _portable(e: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(e))
    except Exception:
        return RuntimeError(f"{type(e).__name__}: {e}")
    return e


def _alone() -> None:
    """Die with the parent, leave no core file, and be the first that the system ends when memory is short."""
    if sys.platform != "linux":
        return
    import resource

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")
