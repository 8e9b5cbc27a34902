"""A store that fails some of the requests, in all the ways that networks have: nothing is lost, nothing is twice."""

from __future__ import annotations

import time

import pytest

from segbatch.errors import OutputError
from segbatch.storage.files import Files
from segbatch.storage.retry import RetryPolicy
from segbatch.storage.store import Store
from tests.store.proxy import KINDS, FaultyProxy
from tests.store.seaweed import Seaweed


def impatient(seaweed: Seaweed, proxy: FaultyProxy) -> dict[str, object]:
    """Storage options by which a stalled request is given up soon, without botocore's own retries."""
    return seaweed.storage_options(proxy.endpoint) | {
        "config_kwargs": {"read_timeout": 0.5, "retries": {"total_max_attempts": 1}}
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_through_a_store_that_spoils_one_of_three(seaweed: Seaweed, place: str, kind: str) -> None:
    # A stalled upload is ended by this alone: aiohttp's read timeout does not run while it waits for "100 Continue".
    data = bytes(range(256)) * 5000
    with FaultyProxy(seaweed.ports["s3"], spoil=1, of=3, seed=7, kinds=(kind,)) as proxy:
        options = impatient(seaweed, proxy)
        retry = RetryPolicy(attempt_seconds=0.5)
        store, files = Store(f"s3://{place}/out", options, retry), Files(options, retry)
        assert store.create("run.json", data), "its own, even if the answer was lost"
        assert not store.create("run.json", b"late")
        for i in range(4):
            store.write(f"masks/{i}", data[i:])
        assert sorted(store.names("masks")) == list("0123")
        assert [store.read(f"masks/{i}") for i in range(4)] == [data[i:] for i in range(4)]
        with store.open("masks/1") as f:
            assert f.read() == data[1:]
        assert files.read(f"s3://{place}/out/masks/2", 10**7, len(data) - 2) == data[2:]
        with files.open(f"s3://{place}/out/masks/3") as stream:
            assert stream.read() == data[3:]
        store.move("masks/0", "retired/0")
        store.remove_all(["retired/0"])
        assert store.exists("masks/1")
        assert sorted(store.names("masks")) == list("123")
    assert proxy.counts[kind] >= 8
    assert proxy.share >= 0.3


def test_a_store_that_never_answers_is_given_up(seaweed: Seaweed, place: str) -> None:
    with FaultyProxy(seaweed.ports["s3"], spoil=1, of=1, seed=7, kinds=("stalled",)) as proxy:
        retry = RetryPolicy(attempt_seconds=0.5, write_deadline_seconds=5.0)
        store = Store(f"s3://{place}/out", seaweed.storage_options(proxy.endpoint), retry)
        begun = time.monotonic()
        with pytest.raises(OutputError, match="the store is unavailable; committed chunks are kept"):
            store.write("a", b"x")
        assert time.monotonic() - begun < 30, "the client alone would wait for more than a minute"
    assert proxy.counts["stalled"] >= 2
    assert Store(f"s3://{place}/out", seaweed.storage_options()).names("") == []


def test_the_share_is_exact_and_every_kind_occurs() -> None:
    proxies = [FaultyProxy(1, spoil=1, of=8, seed=s) for s in (1, 1, 2)]
    drawn = [[p.fate() for _ in range(96)] for p in proxies]
    for proxy in proxies:
        proxy._server.server_close()
        assert proxy.share == 0.125
        assert all(proxy.counts[kind] == 2 for kind in KINDS)
    assert drawn[0] == drawn[1] != drawn[2]
