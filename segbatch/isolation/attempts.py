"""The protocol that counts attempts at a chunk outside the workers, so that a crash does not lose the count."""

from __future__ import annotations

from typing import Protocol

from segbatch.errors import PlatformError

# Lost nodes cost attempts too, so this is far more than are needed to isolate a poison record.
_MAX_ATTEMPTS = 12


class Draining(Exception):
    """No new work is started: chunks in flight are finished, the others are left for another run."""


class AttemptCounter(Protocol):
    """Counts attempts that began and did not end, and the starts of workers."""

    def begin(self, key: str) -> tuple[int, float]:
        """Begin an attempt at ``key``.

        Returns:
            The number of earlier attempts that did not end, and the seconds since the last of them began.

        Raises:
            Draining: No new work is started.
        """
        ...

    def end(self, key: str) -> None:
        """Forget ``key``: the attempt has ended."""
        ...

    def start(self, worker: str) -> tuple[int, str]:
        """Count a start of ``worker``. Never raises ``Draining``: chunks in flight need their workers.

        Returns:
            The number of earlier starts since it was last ready, and the last cause that ``failed`` received, or "".
        """
        ...

    def failed(self, worker: str, cause: str) -> None:
        """Record why the current start of ``worker`` failed."""
        ...

    def ready(self, worker: str) -> None:
        """Record that ``worker`` has started."""
        ...


def begin_attempt(attempts: AttemptCounter, key: str, what: str) -> tuple[int, float]:
    """Call ``attempts.begin(key)``. Raises ``PlatformError`` about ``what`` once the retry budget is exhausted."""
    earlier, seconds = attempts.begin(key)
    if earlier >= _MAX_ATTEMPTS:
        raise PlatformError(
            f"{what}: crashed {earlier} workers; see their logs, and whether the machines have enough memory"
        )
    return earlier, seconds
