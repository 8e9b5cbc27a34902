"""How often each piece of work was begun, counted where the death of a worker does not reach. Does not import Ray."""

from __future__ import annotations

from typing import Protocol

from segbatch.errors import PlatformError

# Nodes that are taken away cost attempts too, so this is far more than a record needs to be found out.
_MAX_ATTEMPTS = 12


class Draining(Exception):
    """No new work is started: chunks in flight are finished, the others are left for another run."""


class AttemptCounter(Protocol):
    """Counts begun and not ended work, and the starts of workers, outside the workers."""

    def begin(self, key: str) -> tuple[int, float]:
        """Begin ``key``. How often it was begun before and not ended, and the seconds since the last time.

        Raises ``Draining`` if no new work is started.
        """
        ...

    def end(self, key: str) -> None:
        """``key`` is done, and forgotten."""
        ...

    def start(self, worker: str) -> tuple[int, str]:
        """Count a start of ``worker``. How many there were since it was last ready, and the last cause noted, or "".

        Never raises ``Draining``: a worker that is replaced while the job ends must be able to start.
        """
        ...

    def failed(self, worker: str, cause: str) -> None:
        """Note why the present start of ``worker`` failed."""
        ...

    def ready(self, worker: str) -> None:
        """``worker`` has started."""
        ...


def begin_attempt(attempts: AttemptCounter, key: str, what: str) -> tuple[int, float]:
    """``attempts.begin(key)``. Raises ``PlatformError`` that names ``what`` once the retry budget is exhausted."""
    earlier, seconds = attempts.begin(key)
    if earlier >= _MAX_ATTEMPTS:
        raise PlatformError(
            f"{what}: {earlier} workers died over it; see their logs, and whether the machines have enough memory"
        )
    return earlier, seconds
