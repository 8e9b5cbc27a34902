"""The one policy of retries: how long storage is waited for, and how often it is asked meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from segbatch.storage.failures import is_transient

T = TypeVar("T")

_BYTES_PER_SECOND = 2**20


@dataclass(frozen=True)
class RetryPolicy:
    """Retry with exponential backoff and full jitter, so that clients do not retry in lockstep after an outage.

    Attributes:
        deadline_seconds: How long a request is retried after its first failure.
        write_deadline_seconds: The same for writes, longer since what was computed for one would be lost.
        local_deadline_seconds: How long a local disk is waited for: a mount that is restarted is back by then.
        attempt_seconds: When one request that moves no data is abandoned, and retried.
        first_wait_seconds: Upper limit of the first wait; each further one doubles it.
        max_wait_seconds: Upper limit of any wait.
        sleep: Waits for so many seconds.
        clock: Gives the present time in seconds.
    """

    deadline_seconds: float = 60.0
    write_deadline_seconds: float = 120.0
    local_deadline_seconds: float = 5.0
    attempt_seconds: float = 20.0
    first_wait_seconds: float = 0.25
    max_wait_seconds: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def attempt_limit(self, size: int) -> float:
        """Return after how many seconds one attempt that moves ``size`` bytes is abandoned."""
        return self.attempt_seconds + size / _BYTES_PER_SECOND

    def run(
        self,
        attempt: Callable[[], T],
        deadline_seconds: float,
        size: int = 0,
        retried: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        """Return what ``attempt`` returns, retried for up to ``deadline_seconds``; its last error is raised unchanged.

        Args:
            attempt: One request.
            deadline_seconds: As of a request that moves no data.
            size: Bytes that the request moves; they extend the deadline.
            retried: Whether an exception is retried.
        """
        deadline = self.clock() + deadline_seconds + size / _BYTES_PER_SECOND
        wait = self.first_wait_seconds
        while True:
            try:
                return attempt()
            except Exception as e:  # the boundary to clients of storage: all but the transient ones are raised again
                pause = random.uniform(0, wait)
                if not retried(e) or self.clock() + pause > deadline:
                    raise
            self.sleep(pause)
            wait = min(wait * 2, self.max_wait_seconds)
