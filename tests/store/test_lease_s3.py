"""The lease of a night on a real object store, by conditional writes; see tests/storage/test_lease.py."""

from __future__ import annotations

import pytest

from segbatch.errors import Busy
from segbatch.storage.lease import LeaseLost, holder
from segbatch.storage.store import Store
from tests.storage.test_lease import HOUR, Clock, other_holder, race, take
from tests.store.seaweed import Seaweed


def test_one_of_eight_holds_it_and_one_of_eight_takes_a_dead_ones_over(seaweed: Seaweed, place: str) -> None:
    clock = Clock()
    stores = [Store(f"s3://{place}/state", seaweed.storage_options()) for _ in range(8)]
    (first,) = race(stores, clock)
    with pytest.raises(Busy, match=f"s3://{place}/state: another run holds the lease"):
        take(stores[0], clock)
    clock.now += HOUR / 2
    first.renew()
    clock.now += HOUR - 1
    assert race(stores, clock) == []
    clock.now += 1
    (heir,) = race(stores, clock)
    with pytest.raises(LeaseLost, match="taken over"):
        first.renew()
    with heir.kept():
        assert holder(stores[0], clock)
    assert holder(stores[0], clock) is None
    (after,) = race(stores, clock)
    after.renew()


def test_the_lease_of_a_killed_process_is_taken_over_at_once_by_one(seaweed: Seaweed, place: str) -> None:
    clock = Clock()
    stores = [Store(f"s3://{place}/state", seaweed.storage_options()) for _ in range(4)]
    with other_holder(stores[0], clock, seaweed.storage_options()) as process:
        assert race(stores, clock) == []
        process.kill()
    (heir,) = race(stores, clock)
    heir.renew()
