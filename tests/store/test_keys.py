"""Keys of an object store are read as they are: slashes in a row, dots, a slash at either end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from segbatch.errors import SourceError
from tests.corpus import photographs, tar_bytes, write_folder
from tests.inputs import open_source
from tests.sources.contract import read
from tests.store.literal import literal_bucket

JPEGS = dict(zip("abcdefgh", (data for _, data in photographs(8, side=32)), strict=True))
KEYS = {
    "in/a.jpg": "a",
    "in//a.jpg": "b",
    "in//sub//c.jpg": "c",
    "in///d.jpg": "d",
    "in/./e.jpg": "e",
    "in/../f.jpg": "f",
    "/g.jpg": "g",
    "//sub/h.jpg": "h",
}
ALL_OF_IN = {"a.jpg": "a", "/a.jpg": "b", "/sub//c.jpg": "c", "//d.jpg": "d", "./e.jpg": "e", "../f.jpg": "f"}


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    markers = {"in/": b"", "in//": b"", "in/empty/": b"", "in/photo.jpg/": b"", "odd/": b"not empty"}
    shards = {
        f"tars{mark}{name}.tar": tar_bytes([(f"{name}.jpg", JPEGS[name])]) for mark in ("/", "//") for name in "ab"
    }
    with literal_bucket({**{key: JPEGS[name] for key, name in KEYS.items()}, **markers, **shards}) as options:
        yield options


def found(options: dict[str, Any], *inputs: str) -> dict[str, bytes | None]:
    records = read(open_source([f"s3://bucket{i}" for i in inputs], storage_options=options))
    assert [r.error for r in records] == [None] * len(records)
    assert len({r.image_id for r in records}) == len(records)
    return {r.image_id: r.data for r in records}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/in", ALL_OF_IN),
        ("/in/", ALL_OF_IN),
        ("/in//", {"a.jpg": "b", "sub//c.jpg": "c", "/d.jpg": "d"}),
        ("/in///", {"d.jpg": "d"}),
        ("/in//sub", {"/c.jpg": "c"}),
        ("/in//sub//", {"c.jpg": "c"}),
        ("//", {"g.jpg": "g", "/sub/h.jpg": "h"}),
        ("///", {"sub/h.jpg": "h"}),
        ("///sub", {"h.jpg": "h"}),
        ("/in/./e.jpg", {"e.jpg": "e"}),
        ("/in/../f.jpg", {"f.jpg": "f"}),
        ("/in//a.jpg", {"a.jpg": "b"}),
        ("//g.jpg", {"g.jpg": "g"}),
        ("/in//*.jpg", {"a.jpg": "b"}),
        ("/in/*.jpg", {"a.jpg": "a"}),
        ("/in/**/*.jpg", ALL_OF_IN),
        ("/in//{a,sub//c}.jpg", {"a.jpg": "b", "sub//c.jpg": "c"}),
        ("/in{/,//}a.jpg", {"a.jpg": "a", "/a.jpg": "b"}),
    ],
)
def test_an_object_is_read_by_its_key_as_it_is(options: dict[str, Any], given: str, expected: dict[str, str]):
    assert found(options, given) == {key: JPEGS[name] for key, name in expected.items()}


def test_the_same_name_after_one_slash_and_after_two_are_two_objects(options: dict[str, Any]):
    assert found(options, "/in/a.jpg", "/in//a.jpg") == {"a.jpg": JPEGS["a"], "/a.jpg": JPEGS["b"]}
    assert found(options, "/in//", "/in/a.jpg") == {
        "a.jpg": JPEGS["a"], "/a.jpg": JPEGS["b"], "/sub//c.jpg": JPEGS["c"], "//d.jpg": JPEGS["d"]
    }  # fmt: skip
    with pytest.raises(SourceError, match="is named by two inputs"):
        found(options, "/in//a.jpg", "/in//")


def test_shards_after_two_slashes_are_shards_of_their_own(options: dict[str, Any]):
    names = ["/a.tar/a", "/b.tar/b", "a.tar/a", "b.tar/b"]
    assert sorted(found(options, "/tars")) == names
    assert sorted(found(options, "/tars/*.tar", "/tars//*.tar")) == names
    assert sorted(found(options, "/tars//{a,b}.tar")) == ["a.tar/a", "b.tar/b"]


def test_a_folder_that_a_store_marks_is_no_record_and_other_such_keys_are_counted(options: dict[str, Any]):
    assert not open_source(["s3://bucket/in"], storage_options=options).corpus().skipped
    with pytest.raises(SourceError, match="1 with a key that ends in a slash"):
        open_source(["s3://bucket/odd"], storage_options=options).corpus()


class Walked(AbstractFileSystem):
    """A store whose client lists folder by folder: it cannot look into a folder with an empty name."""

    protocol = "walked"
    keys: ClassVar = {"in/a.jpg": "a", "in//b.jpg": "b", "other/c.jpg": "c"}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("walked://").strip("/")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path in self.keys:
            return {"name": path, "size": len(JPEGS[self.keys[path]]), "type": "file"}
        if any(key.startswith(f"{path}/") for key in self.keys):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        below = (key[len(path) + 1 :] for key in self.keys if key.startswith(f"{path}/"))
        names = sorted({f"{path}/{name.split('/')[0]}" for name in below})
        return [self.info(name) for name in names] if detail else names

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return JPEGS[self.keys[self._strip_protocol(path)]][start:end]


def test_keys_that_a_client_cannot_list_are_a_refusal_and_read_where_they_are_named():
    fsspec.register_implementation("walked", Walked, clobber=True)
    assert [r.data for r in read(open_source(["walked://other"]))] == [JPEGS["c"]]
    with pytest.raises(SourceError, match="walked://in: holds keys with two slashes in a row"):
        open_source(["walked://in"]).corpus()
    assert [r.data for r in read(open_source(["walked://in//b.jpg", "walked://in/a.jpg"]))] == [JPEGS["b"], JPEGS["a"]]


def test_on_a_disk_slashes_in_a_row_are_one(tmp_path: Path):
    write_folder(tmp_path / "in", [("a.jpg", JPEGS["a"])])
    for given in (
        f"{tmp_path}/in//a.jpg",
        f"/{tmp_path}//in//",
        f"{tmp_path}//in//*.jpg",
        f"file://{tmp_path}/in//a.jpg",
    ):
        assert [r.image_id for r in read(open_source([given]))] == ["a.jpg"]
        with pytest.raises(SourceError, match=r"a.jpg: is named by two inputs"):
            open_source([given, f"{tmp_path}/in/a.jpg"]).corpus()
