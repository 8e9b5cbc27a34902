"""Failing stores: what is tried again, what becomes an error row, and what stops the job."""

from __future__ import annotations

import errno
import io
import itertools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segbatch.errors import Outage, RecordFailure
from segbatch.sources import Source
from segbatch.sources.formats import ReadOptions
from segbatch.storage import remote
from segbatch.storage.failures import is_transient
from segbatch.storage.files import Files
from segbatch.storage.retry import RetryPolicy
from tests.corpus import photographs, tar_bytes, write_manifest, write_parquet
from tests.sources.contract import read

SAMPLES = photographs(5, side=32)


class Flaky(MemoryFileSystem):
    """Objects in memory, whose requests fail ``failures`` times before each answer."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012
    failures = 0
    error: Exception = ConnectionResetError("peer")
    calls = 0
    ignores_ranges = False
    _left: dict[Any, int] = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _fail(self, *request: Any) -> None:
        cls = type(self)
        cls.calls += 1
        left = cls._left.setdefault(request, cls.failures)
        if left:
            cls._left[request] = left - 1
            raise cls.error

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self._fail("cat", path, start, end)
        if self.ignores_ranges:
            start = end = None
        return super().cat_file(path, start, end, **kwargs)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self._fail("info", path)
        return super().info(path, **kwargs)


@pytest.fixture(autouse=True)
def _flaky(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    for name, value in {"store": {}, "failures": 0, "calls": 0, "_left": {}, "ignores_ranges": False}.items():
        monkeypatch.setattr(Flaky, name, value)


# Retries without waiting, for ever; and at most 60 times.
PATIENT = RetryPolicy(first_wait_seconds=0.0, sleep=lambda seconds: None, clock=lambda: 0.0)


def impatient() -> RetryPolicy:
    clock = itertools.count()
    return replace(PATIENT, clock=lambda: float(next(clock)))


def source(uri: str, retry: RetryPolicy = PATIENT, **options: Any) -> Source:
    return Source([uri], ReadOptions(Files(retry=retry), **options))


def put(name: str, data: bytes) -> str:
    Flaky().pipe_file(f"/{name}", data)
    return f"flaky://{name}"


def status(code: int) -> Exception:
    error = OSError("request failed")
    error.status = code  # type: ignore[attr-defined]
    return error


def client_error(code: int) -> Exception:
    error = Exception("as botocore raises")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": code}}  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(), ConnectionResetError(), BrokenPipeError(), OSError(errno.EIO, "Internal Error"),
        OSError(errno.EBUSY, "Slow Down"), OSError("Please reduce your request rate."), status(503), status(429),
        client_error(500), type("ServerDisconnectedError", (Exception,), {})(),
    ],
)  # fmt: skip
def test_what_may_pass_is_transient(error: Exception):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(), PermissionError(), IsADirectoryError(), status(404), status(403), client_error(400),
        ValueError("slow down"), OSError(errno.ENOSPC, "full"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_not(error: Exception):
    assert not is_transient(error)


def test_waits_grow_and_end_at_the_deadline():
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    def call() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        RetryPolicy(sleep=sleep, clock=lambda: now[0]).run(call, 60.0)
    assert sum(waits) <= 60
    assert all(wait <= min(0.25 * 2**n, 15) for n, wait in enumerate(waits))
    assert len(waits) >= 6


def test_an_error_that_will_not_pass_is_raised_at_once():
    calls = []

    def call() -> None:
        calls.append(1)
        raise PermissionError

    with pytest.raises(PermissionError):
        RetryPolicy().run(call, 60.0)
    assert len(calls) == 1


def write_inputs(tmp_path: Path) -> dict[str, str]:
    for name, data in SAMPLES:
        put(f"b/folder/{name}", data)
    manifest = write_manifest(tmp_path / "m.csv", [f"folder/{name}" for name, _ in SAMPLES])
    parquet = write_parquet(tmp_path / "p.parquet", SAMPLES)
    return {
        "folder": "flaky://b/folder" if put("b/x", b"") else "",
        "tar": put("b/a.tar", tar_bytes(SAMPLES)),
        "manifest": put("b/m.csv", manifest.read_bytes()),
        "parquet": put("b/p.parquet", parquet.read_bytes()),
    }


@pytest.mark.parametrize("input", ["folder", "tar", "manifest", "parquet"])
def test_a_store_that_fails_and_recovers_loses_nothing(tmp_path: Path, input: str):
    uri = write_inputs(tmp_path)[input]
    expected = [data for _, data in SAMPLES]
    assert [r.data for r in read(source(uri))] == expected
    quiet, Flaky.calls = Flaky.calls, 0
    Flaky.failures, Flaky._left = 3, {}
    assert [r.data for r in read(source(uri))] == expected
    assert Flaky.calls > quiet


@pytest.mark.parametrize("outage", [False, True])
def test_an_object_that_keeps_failing_is_an_error_row_and_a_store_stops_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: bool
):
    inputs = write_inputs(tmp_path)
    shards = {name: (s := source(uri, impatient()), next(iter(s.shards()))) for name, uri in inputs.items()}
    Flaky.failures, Flaky._left = 10**6, {}
    if not outage:
        monkeypatch.setattr(Flaky, "info", MemoryFileSystem.info)
        folder, shard = shards["folder"]
        records = [r for c in folder.chunks(shard, 100) for r in c.records]
        assert {r.error.type for r in records if r.error} == {"UnreadableObject"}
        assert len(records) == len(SAMPLES)
        return
    folder, shard = shards["folder"]
    with pytest.raises(Outage, match="the store is unavailable") as stopped:
        list(folder.chunks(shard, 100))
    assert stopped.value.exit_code == 1, "nothing is wrong with the configuration"
    assert isinstance(pickle.loads(pickle.dumps(stopped.value)), Outage)
    with pytest.raises(Outage, match="the store is unavailable"):
        list(source(inputs["folder"], impatient()).shards())
    for name in ("tar", "parquet"):
        opened, shard = shards[name]
        with pytest.raises(Outage, match=r"the store is unavailable .* run the job again when it answers"):
            list(opened.chunks(shard, 100))


def test_a_refused_object_is_an_error_row_and_a_store_that_refuses_all_stops_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = source(write_inputs(tmp_path)["folder"], impatient())
    (shard,) = folder.shards()
    refused = [f"/b/folder/{SAMPLES[0][0]}"]

    def cat_file(self: Flaky, path: str, *args: Any, **kwargs: Any) -> bytes:
        if path in refused or not refused:
            raise PermissionError("Forbidden")
        return MemoryFileSystem.cat_file(self, path, *args, **kwargs)

    def info(self: Flaky, path: str, **kwargs: Any) -> dict[str, Any]:
        if not refused:
            raise PermissionError("Forbidden")
        return MemoryFileSystem.info(self, path, **kwargs)

    monkeypatch.setattr(Flaky, "cat_file", cat_file)
    monkeypatch.setattr(Flaky, "info", info)
    (chunk,) = folder.chunks(shard, 100)
    first, *others = chunk.records
    assert first.error is not None
    assert (first.error.type, "access is denied (Forbidden)" in first.error.message) == ("UnreadableObject", True)
    assert [r.data for r in others] == [data for _, data in SAMPLES[1:]]
    refused.clear()
    with pytest.raises(Outage, match="the store is unavailable"):
        list(folder.chunks(shard, 100))


def test_of_a_store_without_ranges_small_objects_are_read_whole_and_large_ones_are_an_error():
    Flaky.ignores_ranges = True
    stream = Files().open(put("small", b"0123456789"), read_ahead=False)
    stream.seek(4)
    assert (stream.read(3), stream.read(100), Flaky.calls) == (b"456", b"789", 2)
    stream = Files().open(put("large", bytes(32 * 2**20 + 1)), read_ahead=False)
    with pytest.raises(OSError, match="ignores ranges"):
        stream.read(16)


def test_whole_objects_by_one_request_or_two(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "FIRST_READ_BYTES", 10)
    files = Files()
    for data, requests in ((b"", 1), (b"0123456789", 1), (b"0123456789ab", 3)):
        uri = put("one", data)
        Flaky.calls = 0
        assert files.read(uri, 100) == data
        assert Flaky.calls == requests
    with pytest.raises(RecordFailure, match=r"12 bytes, more than max_record_bytes = 11; raise max_record_bytes"):
        files.read(uri, 11)
    assert files.read(uri, 12) == b"0123456789ab"


def test_a_record_that_is_too_large_is_an_error_row(tmp_path: Path):
    limit = len(SAMPLES[0][1]) - 1
    for uri in write_inputs(tmp_path).values():
        records = read(source(uri, max_record_bytes=limit))
        assert [r.error is not None for r in records] == [len(data) > limit for _, data in SAMPLES]
        assert {r.error.type for r in records if r.error} == {"RecordTooLarge"}


def test_options_are_carried_and_not_shown():
    files = Files({"secret": "hush"})
    assert "hush" not in repr(files)
    assert pickle.loads(pickle.dumps(files))._options == {"secret": "hush"}


def test_remote_streams_seek():
    stream = Files().open(put("s", bytes(range(100))), read_ahead=False)
    assert stream.seek(-10, io.SEEK_END) == 90
    assert stream.read(20) == bytes(range(90, 100))
    assert stream.read(1) == b""
    stream.seek(5)
    assert stream.read(2) == b"\x05\x06"
    assert stream.tell() == 7
