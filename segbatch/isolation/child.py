"""Run a stage in a child process, and report how the process ended if a record crashed it."""

from __future__ import annotations

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
from segbatch.isolation.limits import Limits
from segbatch.isolation.memory import resident
from segbatch.processes import end_with_parent
from segbatch.protocols import InFlight, Stage
from segbatch.records import Chunk

_POLL_SECONDS = 0.05
_BUILD_SECONDS = 600.0
# Sent by people, by the kernel when memory is short, by a machine that shuts down: not caused by a record.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


@dataclass(frozen=True)
class ChildExit:
    """How a child process ended.

    Attributes:
        kind: ``crash``, ``killed``, ``time`` or ``memory``.
        cause: A phrase for the error row, which does not depend on time or machine.
        stages: The stage of each record in flight, by position.
        ready: Whether the child had survived the canary.
    """

    kind: str
    cause: str
    stages: dict[int, str]
    ready: bool


class ChildProcess:
    """A child process that holds a stage, built there by ``build``."""

    def __init__(self, build: Callable[[], Stage], limits: Limits) -> None:
        self._limits, self._memory = limits, limits.memory()
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
        with suppress(OSError):  # it has ended already, which the first run reports
            self._connection.send_bytes(pickle.dumps(build))

    def run(self, chunk: Chunk) -> Chunk | ChildExit:
        """Return the result of the stage, or how the process ended. Raises what the stage raised."""
        if not self._ready:
            outcome = self._wait(_BUILD_SECONDS)
            if isinstance(outcome, ChildExit):
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
        """Return the answer of the child, or how it ended."""
        in_flight: dict[int, tuple[str, float]] = {}
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
                        return self._exit("crash", content[0], in_flight)
                    if kind == "begin":
                        stage, positions, pixels = content
                        in_flight.update(dict.fromkeys(positions, (stage, pixels / max(1, len(positions)))))
                    else:
                        for position in content[0]:
                            in_flight.pop(position, None)
                    pixels = int(sum(share for _, share in in_flight.values()))
                    deadline = time.monotonic() + max(seconds, self._limits.seconds(pixels))
            except (EOFError, OSError, pickle.UnpicklingError):
                return self._exit(*_ending(self._process.wait()), in_flight)
            if kind := self._memory_exceeded():
                return self._exit(kind, "took more memory than a worker may hold (max_worker_bytes)", in_flight)
            if time.monotonic() > deadline:
                return self._exit("time", "was not finished within the time limit (stall_seconds)", in_flight)

    def _memory_exceeded(self) -> str:
        """Return the kind of exit if the child holds too much memory, else ``""``."""
        held = resident(self._process.pid) or 0
        if self._memory is None:
            return ""
        if self._memory.is_exceeded_alone(held):
            return "memory"
        # Other workers may have caused it, as they may cause a kill from outside.
        return "killed" if self._memory.is_exceeded_together(held, os.getppid(), held) else ""

    def _exit(self, kind: str, cause: str, in_flight: dict[int, tuple[str, float]]) -> ChildExit:
        self.close()
        return ChildExit(kind, cause, {position: stage for position, (stage, _) in in_flight.items()}, self._ready)


def _ending(code: int) -> tuple[str, str]:
    if code >= 0:
        return "crash", f"ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return ("killed" if -code in _FROM_OUTSIDE else "crash"), f"ended its process by {name}"


class _PipeTracker(InFlight):
    """Reports to the parent through the pipe, which outlives this process."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def begin(self, stage: str, positions: Sequence[int], pixels: int) -> None:
        with self._lock:
            self._connection.send(("begin", stage, list(positions), pixels))

    def end(self, positions: Sequence[int]) -> None:
        with self._lock:
            self._connection.send(("end", list(positions)))


def main() -> None:
    """Build the stage in the child, run the canary, then run the chunks that the parent sends, until it is gone."""
    _bind_to_parent()
    connection = Connection(int(sys.argv[1]))
    in_flight = _PipeTracker(connection)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            stage: Stage = pickle.loads(connection.recv_bytes())()
            with suppress(NetworkError):  # wrong scores are no danger: the records' own are checked
                stage(stage.canary(), in_flight)
            connection.send(("done", None))
            while True:
                connection.send(("done", stage(connection.recv(), in_flight)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as e:  # the child process: whatever the stage raises is raised in the parent
            if lost_gpu(e):
                connection.send(("lost", f"lost the GPU: {str(e).splitlines()[0]}"))
            else:
                connection.send(("raised", _portable(e)))


def _portable(e: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(e))
    except Exception:  # the child process: a foreign class may fail to pickle in any way
        return RuntimeError(f"{type(e).__name__}: {e}")
    return e


def _bind_to_parent() -> None:
    """End with the parent, write no core file, and be the kernel's first choice when memory is short."""
    if sys.platform != "linux":
        return
    import resource

    end_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")
