"""One night at a time: of any that try, one holds; a dead one's lease ends; a holder that lost it stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segbatch.errors import Busy, OutputError
from segbatch.storage.lease import Lease, LeaseLost, holder
from segbatch.storage.store import Store
from tests.cluster.jobs import wait_for

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_764_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "state"))


def take(store: Store, clock: Callable[[], float], what: str = "a night", seconds: float = HOUR) -> Lease:
    return Lease.take(store, seconds, clock, what)


def race(stores: list[Store], clock: Clock) -> list[Lease]:
    """What those get that all try at the same moment, each through a store of its own."""
    together = threading.Barrier(len(stores))

    def attempt(store: Store) -> Lease | None:
        together.wait()
        try:
            return take(store, clock)
        except Busy:
            return None

    with ThreadPoolExecutor(len(stores)) as pool:
        return [lease for lease in pool.map(attempt, stores) if lease is not None]


def test_a_second_is_told_who_holds_it(store: Store, clock: Clock) -> None:
    assert holder(store, clock) is None
    with take(store, clock, "the night of 2026-11-20").kept():
        with pytest.raises(
            Busy, match=r"another run holds the lease: .+@.+ \(process \d+\), the night of 2026-11-20; "
        ) as e:
            take(store, clock)
        assert e.value.exit_code == 5
        assert "the night of 2026-11-20" in (holder(store, clock) or "")
    assert holder(store, clock) is None
    with take(store, clock).kept():
        pass


def test_it_is_given_back_after_a_failure(store: Store, clock: Clock) -> None:
    with pytest.raises(RuntimeError), take(store, clock).kept():
        raise RuntimeError
    with take(store, clock).kept():
        pass


def test_a_dead_nights_lease_ends_and_is_taken_over_by_one(store: Store, clock: Clock) -> None:
    dead = take(store, clock)
    clock.now += HOUR - 1
    with pytest.raises(Busy):
        take(store, clock)
    clock.now += 1
    (heir,) = race([Store(store.uri) for _ in range(8)], clock)
    assert dead.lost
    with pytest.raises(LeaseLost, match="taken over by"):
        dead.renew()
    heir.renew()


def test_of_many_that_start_together_one_runs(store: Store, clock: Clock) -> None:
    for _ in range(5):
        (lease,) = race([Store(store.uri) for _ in range(8)], clock)
        with lease.kept():
            pass
    assert len(store.names("lease")) <= 2, "old leases are cleared away"


def test_renewal_holds_it_and_a_gap_loses_it(store: Store, clock: Clock) -> None:
    lease = take(store, clock)
    for _ in range(3):
        clock.now += 0.9 * HOUR
        assert not lease.lost
        lease.renew()
    with pytest.raises(Busy):
        take(store, clock)
    clock.now += HOUR
    assert lease.lost, "it is known without asking the store, and before another may begin"
    with pytest.raises(LeaseLost, match="could not be renewed for 3600 s"):
        lease.renew()


def test_a_lost_lease_is_not_given_back(store: Store, clock: Clock) -> None:
    with take(store, clock, "the first").kept():
        clock.now += HOUR
        second = take(store, clock, "the second")
    with pytest.raises(Busy, match="the second"):
        take(store, clock)
    second.renew()


def test_the_heartbeat_keeps_it(store: Store, clock: Clock) -> None:
    with take(store, clock, seconds=0.03).kept() as lease:
        for _ in range(2):
            before = json.loads(store.read(f"lease/{max(store.names('lease'))}"))["expires"]
            clock.now += 0.01
            renewed = threading.Event()
            for _ in range(500):
                if json.loads(store.read(f"lease/{max(store.names('lease'))}"))["expires"] > before:
                    renewed.set()
                    break
                renewed.wait(0.01)
            assert renewed.is_set()
        assert not lease.lost


HOLDER = """
import json, sys
from segbatch.storage.lease import Lease
from segbatch.storage.store import Store
lease = Lease.take(Store(sys.argv[1], json.loads(sys.argv[3])), 3600.0, lambda: float(sys.argv[2]), "the night before")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_holder(
    store: Store, clock: Clock, storage_options: dict[str, Any] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this host that holds the lease."""
    command = [sys.executable, "-c", HOLDER, store.uri, str(clock.now), json.dumps(storage_options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def changed(store: Store, **process: object) -> None:
    """Change the identity of the process that holds the lease."""
    name = f"lease/{max(store.names('lease'))}"
    record = json.loads(store.read(name))
    store.write(name, json.dumps(record | {"process": record["process"] | process}).encode())


def test_the_lease_of_a_process_that_was_killed_is_taken_over_at_once_by_one(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with other_holder(store, clock) as process:
        assert race([Store(store.uri) for _ in range(4)], clock) == []
        assert "the night before" in (holder(store, clock) or "")
        process.kill()
        process.wait()
        assert holder(store, clock) is None
        (heir,) = race([Store(store.uri) for _ in range(8)], clock)
    heir.renew()
    assert f"(process {process.pid}) was held until its process ended, and is taken over" in caplog.text
    with pytest.raises(Busy):
        take(store, clock)


def test_a_killed_process_that_nobody_has_waited_for_is_gone(store: Store, clock: Clock) -> None:
    with other_holder(store, clock) as process:
        process.kill()
        wait_for(lambda: holder(store, clock) is None, 20)
        assert Path(f"/proc/{process.pid}").exists()
        take(store, clock)


def test_a_process_of_another_host_boot_or_container_keeps_its_lease(store: Store, clock: Clock) -> None:
    with other_holder(store, clock) as process:
        process.kill()
    here = json.loads(store.read("lease/00000001.json"))["process"]
    for elsewhere in ({"host": "h"}, {"boot": "b"}, {"namespaces": "pid:[1] time:[2]"}, {"namespaces": ""}):
        changed(store, **here | elsewhere)
        with pytest.raises(Busy):
            take(store, clock)
    clock.now += HOUR
    take(store, clock)


def test_an_id_that_another_process_was_given_since_is_not_the_holder(store: Store, clock: Clock) -> None:
    with other_holder(store, clock) as process:
        process.kill()
    changed(store, pid=os.getpid())
    take(store, clock)


def test_a_lease_without_a_process_expires_as_before(store: Store, clock: Clock) -> None:
    """Those of earlier versions, and of systems without /proc."""
    store.write("lease/00000001.json", json.dumps({"expires": clock.now + HOUR, "owner": "me@old"}).encode())
    with pytest.raises(Busy, match="me@old"):
        take(store, clock)
    clock.now += HOUR
    take(store, clock)


def test_what_is_no_lease_is_named(store: Store, clock: Clock) -> None:
    store.write("lease/00000001.json", b"{}")
    with pytest.raises(OutputError, match=r"lease/00000001.json: not a lease.*if no run is active, remove"):
        take(store, clock)
