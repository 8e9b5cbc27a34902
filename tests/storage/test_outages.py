"""A store that goes away stops the job, and none of its records becomes an error row; a record that is gone is one."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segbatch.errors import Outage
from segbatch.records import Record, Shard
from segbatch.sources import Source, divided
from segbatch.sources.formats import ReadOptions
from segbatch.storage.files import Files
from segbatch.storage.retry import RetryPolicy
from segbatch.storage.uri import nearest
from tests.corpus import photographs, write_manifest, write_parquet, write_tar
from tests.disks import mounted

PICTURES = photographs(8, side=16)
Act = Callable[[Path], object]


def source(*inputs: Path | str, wait: float = 0.0, format: str | None = None) -> Source:
    """Waits for stores of any kind for so many seconds."""
    files = Files(retry=RetryPolicy(deadline_seconds=wait, local_deadline_seconds=wait))
    return Source([str(i) for i in inputs], ReadOptions(files, format, max_record_bytes=2**17))


def planned(inputs: Source) -> list[Shard]:
    return divided(list(inputs.shards()), 4)


def read(inputs: Source, shards: list[Shard], size: int = 4) -> list[Record]:
    return [record for shard in shards for chunk in inputs.chunks(shard, size) for record in chunk.records]


def errors(records: list[Record]) -> dict[str, str]:
    return {r.image_id: r.error.type for r in records if r.error is not None}


def folder(root: Path, *below: str) -> Path:
    for k, (name, data) in enumerate(PICTURES):
        path = root.joinpath(*(part.format(k) for part in below), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def images(root: Path) -> Path:
    return folder(root)


def folders(root: Path) -> Path:
    return folder(root, "sample-{}")


def links(root: Path) -> Path:
    """To a disk ``DISK`` beside it, as data version control makes them."""
    root.mkdir()
    for path in folder(root.parent / "DISK").iterdir():
        (root / path.name).symlink_to(path)
    return root


def tars(root: Path) -> Path:
    root.mkdir()
    for name in ("a", "b"):
        write_tar(root / f"{name}.tar", PICTURES)
    return root


def tables(root: Path) -> Path:
    root.mkdir()
    for name in ("a", "b"):
        write_parquet(root / f"{name}.parquet", PICTURES)
    return root


def manifest(root: Path) -> Path:
    """With relative paths, and on the disk that goes away."""
    write_manifest(folder(root) / "list.csv", [name for name, _ in PICTURES])
    return root / "list.csv"


def renamed(root: Path) -> None:
    root.rename(root.with_name("away"))


def emptied(root: Path) -> None:
    """What remains of a mount is the folder that it was mounted on."""
    renamed(root)
    root.mkdir()


def with_leftovers(root: Path) -> None:
    emptied(root)
    (root / ".nfs0001").touch()


def a_file(root: Path) -> None:
    renamed(root)
    root.touch()


def without_disk(root: Path) -> None:
    (root.parent / "DISK").rename(root.parent / "ejected")


@pytest.mark.parametrize(
    ("kind", "vanish"),
    [
        *itertools.product([images, folders, tars, tables, manifest], [renamed, emptied]),
        (images, with_leftovers),
        (tars, with_leftovers),
        (images, a_file),
    ],
)
def test_a_folder_that_goes_away_stops_the_job_and_is_named(
    tmp_path: Path, kind: Callable[[Path], Path], vanish: Act
) -> None:
    inputs = source(kind(tmp_path / "in"))
    shards = planned(inputs)
    vanish(tmp_path / "in")
    for shard in shards:
        with pytest.raises(Outage, match=rf"{tmp_path}/in/.*: the store is unavailable") as e:
            read(inputs, [shard])
        assert e.value.exit_code == 1


def test_links_into_a_disk_that_goes_away_stop_the_job(tmp_path: Path) -> None:
    inputs = source(links(tmp_path / "in"))
    shards = planned(inputs)
    without_disk(tmp_path / "in")
    with pytest.raises(Outage):
        read(inputs, shards)


@pytest.mark.parametrize("kind", [images, tars, tables, manifest])
def test_a_folder_that_is_back_in_time_is_read_as_if_nothing_were(tmp_path: Path, kind: Callable[[Path], Path]) -> None:
    inputs = source(kind(tmp_path / "in"), wait=20.0)
    shards = planned(inputs)
    (tmp_path / "in").rename(tmp_path / "away")
    timer = threading.Timer(0.5, (tmp_path / "away").rename, [tmp_path / "in"])
    timer.start()
    records = read(inputs, shards, 100)
    timer.join()
    assert errors(records) == {}
    assert len(records) in (8, 16)


@pytest.mark.parametrize(
    ("kind", "gone", "size"),
    [(images, 1, 1), (images, 3, 4), (images, 7, 100), (images, 7, 1), (folders, 3, 100), (links, 1, 4)],
)
def test_images_that_are_gone_while_others_are_there_are_error_rows(
    tmp_path: Path, kind: Callable[[Path], Path], gone: int, size: int
) -> None:
    inputs = source(kind(tmp_path / "in"))
    shards = divided(list(inputs.shards()), size)
    victims = sorted((tmp_path / "in").rglob("*.jpg"))[:gone]
    for victim in victims:
        shutil.rmtree(victim.parent) if kind is folders else victim.unlink()
    records = read(inputs, shards, size)
    assert len(records) == 8
    assert errors(records) == {str(v.relative_to(tmp_path / "in")): "MissingObject" for v in victims}


@pytest.mark.parametrize("kind", [tars, tables])
def test_a_shard_that_is_gone_while_another_is_there_is_one_error_row(
    tmp_path: Path, kind: Callable[[Path], Path]
) -> None:
    inputs = source(kind(tmp_path / "in"))
    shards = planned(inputs)
    next((tmp_path / "in").glob("a.*")).unlink()
    records = read(inputs, shards)
    assert list(errors(records).values()) == ["MissingObject"]
    assert sum(r.data is not None for r in records) == 8


def test_links_that_were_broken_when_they_were_listed_are_error_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for k in range(3):
        (tmp_path / f"in/{k}.jpg").symlink_to(tmp_path / "nowhere" / f"{k}.jpg")
    inputs = source(tmp_path / "in")
    assert set(errors(read(inputs, planned(inputs))).values()) == {"MissingObject"}


def test_an_unmounted_disk_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with mounted(tmp_path / "in", 1024):
        inputs = source(folder(tmp_path / "in"))
        shards = planned(inputs)
    with pytest.raises(Outage):
        read(inputs, shards)


def test_wrong_paths_in_a_manifest_are_error_rows(tmp_path: Path) -> None:
    write_manifest(tmp_path / "list.csv", [f"/nowhere/{k}.jpg" for k in range(3)])
    inputs = source(tmp_path / "list.csv", wait=60.0)
    assert set(errors(read(inputs, planned(inputs))).values()) == {"MissingObject"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/1", ["a/2", "a/3"]),
        ("b/x/1", ["b/y/1"]),  # none beside it: the next folder above
        ("c", ["a/1", "a/2", "a/3", "b/x/1", "b/y/1"]),
    ],
)
def test_the_nearest_others_are_those_of_the_folder_or_of_the_next_above(name: str, found: list[str]) -> None:
    assert list(nearest(name, ["a/1", "a/2", "a/3", "b/x/1", "b/y/1"])) == found
    assert len(list(nearest("d/5", [f"d/{k}" for k in range(1000)]))) <= 8


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A web server with the pictures: any address 127.0.0.N is a host of it."""
    handler = partial(Quiet, directory=str(folder(tmp_path / "served")))
    server = http.server.ThreadingHTTPServer(("", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def rows(path: Path, hosts: list[str]) -> Path:
    """A manifest with a picture a host, which is host:port."""
    return write_manifest(path, [f"http://{host}/{PICTURES[k % 8][0]}" for k, host in enumerate(hosts)])


DEAD = "127.0.0.1:9"


@pytest.mark.parametrize("dead", [[0], [*range(20)], [*range(0, 50, 3)]])
def test_a_dead_host_among_many_costs_its_own_records(tmp_path: Path, port: int, dead: list[int]) -> None:
    hosts = [DEAD if k in dead else f"127.0.0.{k + 2}:{port}" for k in range(50)]
    inputs = source(rows(tmp_path / "list.csv", hosts), wait=0.3)
    records = read(inputs, planned(inputs))
    assert [k for k, r in enumerate(records) if r.error] == dead
    assert set(errors(records).values()) == {"UnreadableObject"}


@pytest.mark.parametrize(
    "hosts", [[DEAD] * 12, [*[DEAD] * 7, *["127.0.0.2:{}"] * 5], [f"127.0.0.{k}:9" for k in range(2, 40)]]
)
def test_the_hosts_of_most_records_being_away_stops_the_job(tmp_path: Path, port: int, hosts: list[str]) -> None:
    inputs = source(rows(tmp_path / "list.csv", [h.format(port) for h in hosts]), wait=0.3)
    with pytest.raises(Outage, match=r"127\.0\.0"):
        read(inputs, planned(inputs))


def test_a_dead_host_is_not_asked_for_each_of_its_records(tmp_path: Path, port: int) -> None:
    asked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as dead:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    asked.append(dead.accept()[0].close())

        threading.Thread(target=hang_up, daemon=True).start()
        host = f"127.0.0.1:{dead.getsockname()[1]}"
        hosts = [host if k % 3 == 0 else f"127.0.0.2:{port}" for k in range(300)]
        inputs = source(rows(tmp_path / "list.csv", hosts))
        records = read(inputs, planned(inputs))
        dead.shutdown(socket.SHUT_RDWR)
    assert [k for k, r in enumerate(records) if r.error] == [*range(0, 300, 3)]
    assert 0 < len(asked) < 100


def test_objects_that_a_host_does_not_have_are_error_rows_however_many(tmp_path: Path, port: int) -> None:
    inputs = source(write_manifest(tmp_path / "list.csv", [f"http://127.0.0.2:{port}/none/{k}" for k in range(9)]))
    assert set(errors(read(inputs, planned(inputs))).values()) == {"MissingObject"}


@pytest.mark.parametrize(("in_it", "stops"), [(5, True), (2, False)])
def test_a_bucket_that_is_gone_is_an_outage_if_it_has_most_records(tmp_path: Path, in_it: int, stops: bool) -> None:
    store = MemoryFileSystem()
    uris = [
        f"memory://{tmp_path.name}-{'gone' if k < in_it else 'kept'}/{name}" for k, (name, _) in enumerate(PICTURES)
    ]
    for uri, (_, data) in zip(uris[in_it:], PICTURES[in_it:], strict=True):
        store.pipe_file(uri, data)
    inputs = source(write_manifest(tmp_path / "list.csv", uris))
    shards = planned(inputs)
    if stops:
        with pytest.raises(Outage, match="-gone/"):
            read(inputs, shards)
    else:
        assert set(errors(read(inputs, shards)).values()) == {"MissingObject"}


def test_an_object_that_is_gone_from_its_bucket_is_an_error_row(tmp_path: Path) -> None:
    store = MemoryFileSystem()
    uris = [f"memory://{tmp_path.name}/{name}" for name, _ in PICTURES]
    for uri, (_, data) in zip(uris, PICTURES, strict=True):
        store.pipe_file(uri, data)
    listed, named = source(f"memory://{tmp_path.name}"), source(write_manifest(tmp_path / "list.csv", uris))
    shards = [planned(listed), planned(named)]
    for uri in uris[:7]:
        store.rm_file(uri)
    for inputs, planned_before in zip((listed, named), shards, strict=True):
        assert list(errors(read(inputs, planned_before)).values()) == ["MissingObject"] * 7
    store.rm_file(uris[7])
    with pytest.raises(Outage):
        read(listed, shards[0])
