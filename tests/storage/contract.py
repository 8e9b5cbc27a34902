"""What every storage does: apply ``StorageContract`` to one by a fixture ``storage`` of an empty root."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest

from segbatch.errors import MissingObject, ObjectTooLarge, StorageError
from segbatch.storage.base import ObjectInfo, Storage


def described(storage: Storage, prefix: str = "", recursive: bool = False) -> dict[str, ObjectInfo]:
    return {info.name: info for info in storage.list(prefix, recursive)}


class StorageContract:
    def test_an_object_is_read_whole_in_part_and_within_a_limit(self, storage: Storage) -> None:
        storage.write("in/a", b"0123456789")
        storage.write("in/empty", b"")
        for size in (None, 10, 9, 11):  # also where it has changed since it was listed
            assert storage.read("in/a", 10, size) == storage.read("in/a", size=size) == b"0123456789"
        assert storage.read("in/empty") == storage.read("in/empty", 10, 0) == b""
        with pytest.raises(ObjectTooLarge) as caught:
            storage.read("in/a", 9)
        assert caught.value.size == 10
        assert storage.read_beginning("in/a", 4) == b"0123"
        assert storage.read_beginning("in/a", 40) == b"0123456789"

    @pytest.mark.parametrize("buffer_bytes", [0, 4, 100])
    def test_a_stream_seeks(self, storage: Storage, buffer_bytes: int) -> None:
        storage.write("a", bytes(range(100)))
        with storage.open("a", buffer_bytes) as stream:
            assert stream.seek(-10, 2) == 90
            assert stream.read(20) == bytes(range(90, 100))
            assert stream.read(1) == b""
            stream.seek(5)
            assert (stream.read(2), stream.tell()) == (b"\x05\x06", 7)
            assert stream.read() == bytes(range(7, 100))

    def test_what_is_missing_is_told_from_what_fails(self, storage: Storage) -> None:
        for attempt in (storage.read, storage.open, storage.stat):
            with pytest.raises(MissingObject) as caught:
                attempt("in/none")
            error = pickle.loads(pickle.dumps(caught.value))
            assert (error.problem, error.transient, error.kind) == ("does not exist", False, "platform")
            assert str(error) == f"{storage.uri}/in/none: does not exist"
        assert not storage.exists("in/none")
        assert not storage.has("in/none")
        assert list(storage.list("in")) == storage.names("in") == []

    def test_a_listing_shows_what_a_look_at_each_object_shows(self, storage: Storage) -> None:
        for name in ("in/a", "in/b/c", "in2/d", "in/b/e f%20g"):
            storage.write(name, name.encode())
        assert set(described(storage, "in")) == {"in/a", "in/b"}
        assert sorted(storage.names("in")) == ["a", "b"]
        assert described(storage, "in")["in/b"].kind == "folder"
        everything = described(storage, "in", recursive=True)
        assert set(everything) == {"in/a", "in/b/c", "in/b/e f%20g"}
        assert set(described(storage, recursive=True)) == {*everything, "in2/d"}
        for name, info in everything.items():
            assert (info.kind, info.size) == ("file", len(name))
            assert storage.stat(name).version == info.version
            assert storage.has(name)
        assert storage.stat("in/b").kind == "folder"

    def test_a_write_replaces_and_changes_the_tag(self, storage: Storage) -> None:
        storage.write("in/a", b"one")
        before = described(storage, "in")["in/a"]
        tag = storage.write("in/a", b"two")
        after = described(storage, "in")
        assert (storage.read("in/a"), set(after)) == (b"two", {"in/a"})
        assert after["in/a"].tag != before.tag
        assert tag in ("", after["in/a"].tag)

    def test_a_streamed_object_appears_whole_at_the_end_and_never_after_an_exception(self, storage: Storage) -> None:
        storage.write("in/a", b"before")
        with storage.stream("in/a") as f:
            f.write(b"one ")
            f.write(b"two")
            assert storage.read("in/a") == b"before"
        assert storage.read("in/a") == b"one two"
        for name in ("in/a", "in/b"):
            with suppress(ZeroDivisionError), storage.stream(name) as f:
                f.write(b"half")
                raise ZeroDivisionError
        assert (storage.read("in/a"), storage.names("in")) == (b"one two", ["a"])

    def test_the_first_of_two_creators_wins(self, storage: Storage) -> None:
        assert storage.create("run.json", b"first")
        assert not storage.create("run.json", b"second")
        assert storage.read("run.json") == b"first"

    def test_moves_and_deletions_that_another_process_was_first_with_are_no_errors(self, storage: Storage) -> None:
        storage.write("in/a", b"x")
        storage.move("in/a", "out/b")
        storage.move("in/a", "out/b")
        assert (storage.names("in"), storage.read("out/b")) == ([], b"x")
        storage.delete("out/b", "out/c")
        storage.delete("out/b")
        storage.delete()
        storage.delete_empty_folder("out")
        assert not storage.exists("out/b")
        assert storage.names("out") == []

    def test_it_pickles_without_a_connection(self, storage: Storage) -> None:
        storage.write("a", b"x")
        copy = pickle.loads(pickle.dumps(storage))
        assert (copy.read("a"), copy.uri, repr(copy)) == (b"x", storage.uri, repr(storage))

    def test_an_object_is_reachable_beside_another_and_its_uri_opens_it(self, storage: Storage) -> None:
        storage.write("in/a", b"x")
        storage.write("in/b", b"x")
        assert storage.uri_of("in/a").endswith("/in/a")
        storage.delete("in/a")
        with pytest.raises(StorageError) as caught:
            storage.read("in/a")
        assert storage.is_reachable("in/a", caught.value)
