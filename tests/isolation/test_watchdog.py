"""The watchdog's timer: set where it matters, and not for each of many small records, since setting it is dear."""

from __future__ import annotations

import faulthandler
import time
from types import SimpleNamespace
from typing import Any

import pytest

from segbatch.isolation import Limits
from segbatch.isolation.watchdog import Watchdog


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The seconds of each timer that is set; None for one that is taken back."""
    found: list[float | None] = []

    def later(seconds: float, **_: Any) -> None:
        found.append(seconds)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", later)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: found.append(None))
    return found


def test_a_thousand_quick_records_cost_one_timer(timers: list[float | None]) -> None:
    with Watchdog(Limits(600, None)) as watchdog:
        for place in range(1000):
            watchdog.begin("refine", [place], 1024)
            watchdog.end([place])
    assert timers == [600, None]


def test_the_timer_follows_the_work(timers: list[float | None], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("segbatch.isolation.watchdog.time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    watchdog = Watchdog(Limits(600, None))
    with watchdog:
        for _ in range(7):  # a record in two seconds: the timer must not run out, nor be set for each
            watchdog.begin("decode", [0], 1000)
            now[0] += 2
            watchdog.end([0])
        assert timers == [600, 600, 600]
        watchdog.begin("decode", [1], 64_000_000)
        watchdog.end([1])
    with watchdog:
        pass
    assert timers[3:] == [2400, 600, None, 600, None]
