"""Whole objects only: a reader sees the old or the new, a killed writer leaves nothing under a name."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest

from segbatch.errors import OutputError, SpecError
from segbatch.storage.store import TEMPORARY, Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    uri = str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out"
    return Store(uri)


def test_write_replaces_and_reads_back(store):
    store.write("masks/a.parquet", b"one")
    store.write("masks/a.parquet", b"two")
    assert store.read("masks/a.parquet") == b"two"
    assert store.names("masks") == ["a.parquet"]


def test_absent_folder_has_no_names(store):
    assert store.names("masks") == []
    with pytest.raises(FileNotFoundError):
        store.read("masks/a.parquet")


def test_create_lets_the_first_win(store):
    assert store.create("run.json", b"first")
    assert not store.create("run.json", b"second")
    assert store.read("run.json") == b"first"


def test_move_and_remove(store):
    store.write("masks/a", b"x")
    store.move("masks/a", "retired/a")
    store.move("masks/a", "retired/a")  # another run was first
    assert store.names("masks") == []
    assert store.read("retired/a") == b"x"
    store.remove_all(["retired/a", "retired/b"])
    store.remove("retired/a")
    assert not store.exists("retired/a")
    store.remove_empty("retired")
    assert not store.exists("retired")


def test_pickles_without_a_connection(store):
    store.write("a", b"x")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"x"


def _race(uri: str, payload: bytes, barrier, won) -> None:
    barrier.wait()
    if Store(uri).create("run.json", payload):
        won.put(payload)


def test_of_many_creators_one_wins(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(6), context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), b"%d" % i * 1000, barrier, won)) for i in range(6)]
    for r in racers:
        r.start()
    winner = won.get(timeout=30)
    for r in racers:
        r.join()
    assert won.empty()
    assert Store(str(tmp_path)).read("run.json") == winner


def _write_for_ever(uri: str, ready) -> None:
    store = Store(uri)
    for i in range(10**9):
        store.write("masks/a", bytes([i % 256]) * 200_000)
        ready.set()


@pytest.mark.parametrize("attempt", range(3))
def test_killed_writer_leaves_a_whole_object(tmp_path, attempt):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_write_for_ever, args=(str(tmp_path), ready))
    writer.start()
    assert ready.wait(30)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    store = Store(str(tmp_path))
    data = store.read("masks/a")
    assert len(data) == 200_000
    assert len(set(data)) == 1
    assert store.names("masks") == ["a"]
    store.clean_temporary_files()
    assert not (tmp_path / TEMPORARY).exists()


def test_writing_survives_a_sweep_by_another_run(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    replace = os.replace
    swept = []

    def sweep_once(source, target):
        if not swept:
            swept.append(source)
            store.clean_temporary_files()
        return replace(source, target)

    monkeypatch.setattr(os, "replace", sweep_once)
    store.write("masks/a", b"x")
    assert swept
    assert store.read("masks/a") == b"x"


def test_full_disk_is_an_error_that_names_the_object(tmp_path):
    (tmp_path / "masks").write_bytes(b"a file where a folder should be")
    with pytest.raises(OutputError, match=r"masks/a\.parquet: cannot be written"):
        Store(str(tmp_path)).write("masks/a.parquet", b"x")


def test_output_that_is_a_file_is_refused(tmp_path):
    path = Path(tmp_path / "file")
    path.write_bytes(b"")
    with pytest.raises(SpecError, match="is a file; give a folder"):
        Store(str(path))


def test_unknown_protocol_is_named():
    with pytest.raises(SpecError, match="nosuch"):
        Store("nosuch://bucket/out")
