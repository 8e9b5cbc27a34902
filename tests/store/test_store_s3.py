"""The output on a real object store: the promises of tests/storage/test_store.py, and what only S3 can break."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import pytest
import s3fs

from segbatch.errors import OutputError
from segbatch.storage.files import Files
from segbatch.storage.listing import list_input
from segbatch.storage.resolve import read_object
from segbatch.storage.store import Store
from tests.store.seaweed import Seaweed


@pytest.fixture
def store(seaweed: Seaweed, place: str) -> Store:
    return Store(f"s3://{place}/out", seaweed.storage_options())


def test_write_read_list_move_remove(store: Store, seaweed: Seaweed) -> None:
    assert store.names("masks") == []
    assert not store.exists("masks/a")
    with pytest.raises(FileNotFoundError):
        store.read("masks/a")
    with pytest.raises(FileNotFoundError):
        store.open("masks/a")
    store.write("masks/a", b"one")
    store.write("masks/a", b"two")
    store.write("masks/b", b"")
    store.write("masks2/c", b"beside")
    assert store.read("masks/a") == b"two"
    assert store.read("masks/b") == b""
    assert sorted(store.names("masks")) == ["a", "b"]
    assert not s3fs.S3FileSystem(**seaweed.storage_options()).dircache, (
        "a listing of half a million objects is not kept"
    )
    store.move("masks/a", "retired/a")
    store.move("masks/a", "retired/a")
    assert store.names("masks") == ["b"]
    assert store.read("retired/a") == b"two"
    stat = store.files("masks")["b"]
    assert (stat.size, bool(stat.tag)) == (0, True)
    store.write("masks/b", b"x")
    assert store.files("masks")["b"].tag != stat.tag
    store.remove_all(["masks/b", "masks/none"])
    store.remove("masks/b")
    assert not store.exists("masks/b")
    assert store.read("masks2/c") == b"beside"


def test_what_another_client_wrote_is_seen(store: Store, seaweed: Seaweed, place: str) -> None:
    store.write("masks/a", b"x")
    assert store.names("masks") == ["a"]
    seaweed.client().pipe_file(f"{place}/out/masks/b", b"y")
    assert sorted(store.names("masks")) == ["a", "b"]
    assert store.exists("masks/b")


def test_large_objects_in_parts_and_ranges(store: Store, seaweed: Seaweed, place: str) -> None:
    data = bytes(range(256)) * (110 * 2**20 // 256)  # s3fs writes 100 MB and more in parts
    store.write("large", data)
    assert store.read("large") == data
    with store.open("large") as f:
        f.seek(-1000, 2)
        assert f.read() == data[-1000:]
        f.seek(70 * 2**20 + 3)
        assert f.read(10) == data[3:13]
    assert Files(seaweed.storage_options()).read(f"s3://{place}/out/large", 2**30) == data


def _race(uri: str, options: dict[str, Any], payload: bytes, barrier: Any, won: Any) -> None:
    store = Store(uri, options)
    store.exists("anything")  # connected
    barrier.wait()
    won.put(payload if store.create("run.json", payload) else None)


def test_of_many_creators_one_wins(store: Store, seaweed: Seaweed) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(4), context.Queue()
    payloads = [b"%d" % i * 1000 for i in range(4)]
    racers = [
        context.Process(target=_race, args=(store.uri, seaweed.storage_options(), p, barrier, won)) for p in payloads
    ]
    for r in racers:
        r.start()
    results = [won.get(timeout=60) for _ in racers]
    for r in racers:
        r.join()
    assert len([r for r in results if r]) == 1
    assert store.read("run.json") in [r for r in results if r]
    assert not store.create("run.json", b"late")
    assert store.create("run.json", store.read("run.json")), "an attempt of one's own whose answer was lost"


def test_a_refusal_is_told_at_once_and_without_the_secret(store: Store, seaweed: Seaweed) -> None:
    options = seaweed.storage_options() | {"secret": "not-the-secret"}
    refused = Store(store.uri, options)
    for attempt in (
        lambda: refused.read("run.json"),
        lambda: refused.write("a", b"x"),
        lambda: refused.create("a", b"x"),
        lambda: refused.names("masks"),
    ):
        with pytest.raises(OutputError) as told:
            attempt()
        assert store.uri in str(told.value)
        assert "not-the-secret" not in str(told.value)


def test_without_credentials_is_a_sentence(
    store: Store, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    options = {"client_kwargs": {"endpoint_url": seaweed.endpoint, "region_name": "us-east-1"}}
    with pytest.raises(
        OutputError, match=r"credentials for S3 are missing .*AWS_PROFILE.*storage_options: {anon: true}"
    ):
        Store(store.uri, options).write("a", b"x")


def test_pickles_without_a_connection_and_shows_no_secret(store: Store, seaweed: Seaweed) -> None:
    store.write("a", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.read("a") == b"x"
    files = Files(seaweed.storage_options())
    for shown in (repr(copy), str(copy), repr(files)):
        assert seaweed.secret not in shown
        assert seaweed.key not in shown


@pytest.mark.parametrize("pattern", ["in/*.tar", "in", "in/{a,b}.tar"])
def test_a_second_listing_in_one_process_sees_what_is_new(seaweed: Seaweed, place: str, pattern: str) -> None:
    fs = seaweed.client()
    files = Files(seaweed.storage_options())
    for name in ("a", "b"):
        fs.pipe_file(f"{place}/in/{name}.tar", b"1")

    def versions() -> dict[str, str]:
        return {e.name: e.version for listed in list_input(files, f"s3://{place}/{pattern}") for e in listed.entries}

    first = versions()
    assert sorted(first) == ["a.tar", "b.tar"]
    fs.pipe_file(f"{place}/in/a.tar", b"other")
    fs.pipe_file(f"{place}/in/c.tar", b"3")
    second = versions()
    assert second["a.tar"] != first["a.tar"]
    assert second["b.tar"] == first["b.tar"]
    assert ("c.tar" in second) == ("{" not in pattern)


def test_requests_are_few(seaweed: Seaweed, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = seaweed.client()
    fs.pipe_file(f"{place}/a.png", b"x" * 1000)
    fs.pipe_file(f"{place}/empty", b"")
    files = Files(seaweed.storage_options())
    asked: list[str] = []
    call_s3 = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(method)
        return await call_s3(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    assert files.read(f"s3://{place}/a.png", 10**6, 1000) == b"x" * 1000
    assert asked == ["get_object"]
    assert files.read(f"s3://{place}/a.png", 10**6) == b"x" * 1000
    assert asked == ["get_object"] * 2
    assert files.read(f"s3://{place}/a.png", 10**6, 900) == b"x" * 1000, "it has grown since it was listed"
    assert files.read(f"s3://{place}/a.png", 10**6, 1100) == b"x" * 1000, "it has shrunk"
    assert files.read(f"s3://{place}/empty", 10**6) == b""
    assert files.read(f"s3://{place}/empty", 10**6, 0) == b""
    fs.pipe_file(f"{place}/tar", b"x" * 100_000)
    asked.clear()
    with files.open(f"s3://{place}/tar") as stream:
        assert stream.read() == b"x" * 100_000
    assert asked == ["head_object", "get_object"]
    output = Store(f"s3://{place}", seaweed.storage_options())
    asked.clear()
    assert output.read("tar") == b"x" * 100_000
    assert read_object(f"s3://{place}/tar", seaweed.storage_options()) == b"x" * 100_000
    assert asked == ["get_object"] * 2
    asked.clear()
    with output.open("tar") as stream:
        stream.seek(-8, 2)
        assert stream.read() == b"x" * 8
    assert asked == ["head_object", "get_object"]
