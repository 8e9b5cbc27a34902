"""Names with the characters of patterns, and ``file:`` URIs: what exists under the very name is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segbatch.config.base import read_config
from segbatch.errors import MissingInput, SourceError
from segbatch.evaluation.label_images import list_labels
from segbatch.storage.files import Files
from segbatch.storage.store import Store
from tests.corpus import photographs, write_manifest
from tests.inputs import open_source
from tests.sources.contract import read
from tests.store.literal import literal_bucket

KEYS = (
    *("a[1]/x.jpg", "a[1]/y.jpg", "a1/z.jpg", "a[1].jpg", "a1.jpg", "b{0..1}/x.jpg", "b0/y.jpg", "{c,d}.jpg", "c.jpg"),
    *("e*.jpg", "ef.jpg", "g?.jpg", "gh.jpg", "i#1 %20 ü.jpg", "q]}.jpg"),
)
JPEGS = dict(zip(KEYS, (data for _, data in photographs(len(KEYS), side=24)), strict=True))
Place = Callable[[str], tuple[str, dict[str, Any]]]


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A name below a folder, or a bucket, that holds ``JPEGS`` -> (its URI, storage options)."""
    if request.param == "store":
        with literal_bucket(JPEGS) as options:
            yield lambda name: (f"s3://bucket/{name}", options)
        return
    for key, data in JPEGS.items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(data)
    yield lambda name: (f"{tmp_path}/{name}", {})


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ("a[1]", ["a[1]/x.jpg", "a[1]/y.jpg"]),
        ("a[1]/x.jpg", ["a[1]/x.jpg"]),
        ("a[1]/*.jpg", ["a[1]/x.jpg", "a[1]/y.jpg"]),
        ("a[1]/**", ["a[1]/x.jpg", "a[1]/y.jpg"]),
        ("a[1]/{x,y}.jpg", ["a[1]/x.jpg", "a[1]/y.jpg"]),
        ("a[1]/z.jpg", ["a1/z.jpg"]),
        ("a[1].jpg", ["a[1].jpg"]),
        ("a[12].jpg", ["a1.jpg"]),
        ("b{0..1}", ["b{0..1}/x.jpg"]),
        ("b{0..1}/*.jpg", ["b{0..1}/x.jpg"]),
        ("b{0..1}/{x,}.jpg", None),
        ("{c,d}.jpg", ["{c,d}.jpg"]),
        ("e*.jpg", ["e*.jpg"]),
        ("e?.jpg", ["e*.jpg", "ef.jpg"]),
        ("g?.jpg", ["g?.jpg"]),
        ("i#1 %20 ü.jpg", ["i#1 %20 ü.jpg"]),
        ("q]}.jpg", ["q]}.jpg"]),
    ],
)
def test_an_input_by_its_very_name(place: Place, given: str, keys: list[str] | None) -> None:
    uri, options = place(given)
    source = open_source([uri], storage_options=options)
    if keys is None:
        with pytest.raises(SourceError, match="1 of 2 do not exist"):
            read(source)
        return
    records = read(source)
    assert {r.data for r in records} == {JPEGS[key] for key in keys}
    assert len({r.image_id for r in records}) == len(records) == len(keys)


def test_rows_of_a_manifest_are_names_and_no_patterns(place: Place, tmp_path: Path) -> None:
    (options,) = (place("")[1],)
    rows = write_manifest(tmp_path / "list.csv", [{"uri": place(key)[0], "id": str(i)} for i, key in enumerate(KEYS)])
    assert [r.data for r in read(open_source([str(rows)], storage_options=options))] == list(JPEGS.values())


@pytest.mark.parametrize("place", ["store"], indirect=True)
def test_a_manifest_in_a_store_names_what_is_beside_it(place: Place) -> None:
    rows = "uri\n" + "".join(f'"../{key}"\n' for key in KEYS) + "../../x.jpg\n"
    with literal_bucket({**JPEGS, "lists/[l].csv": rows.encode()}) as options:
        *good, outside = read(open_source(["s3://bucket/lists/[l].csv"], storage_options=options))
    assert [r.data for r in good] == list(JPEGS.values())
    assert outside.error is not None
    assert outside.error.type == "BadUri"
    assert "../../x.jpg" in outside.error.message


@pytest.mark.parametrize("place", ["store"], indirect=True)
def test_dots_in_an_input(place: Place) -> None:
    uri, options = place("a1/../a[1]/./x.jpg")
    assert [r.data for r in read(open_source([uri], storage_options=options))] == [JPEGS["a[1]/x.jpg"]]
    with pytest.raises(SourceError, match="lead out of s3://bucket"):
        read(open_source(["s3://bucket/a1/../../other/x.jpg"], storage_options=options))


@pytest.mark.parametrize("written", ["file:{}", "file://{}", "file://localhost{}"])
def test_file_uris_of_what_has_such_a_name(tmp_path: Path, written: str) -> None:
    folder = tmp_path / "a[1] {x,y} ü"
    folder.mkdir()
    (folder / "p.jpg").write_bytes(JPEGS["c.jpg"])
    (folder / "x%20y.jpg").write_bytes(JPEGS["a1.jpg"])
    uri = written.format(folder.as_uri().removeprefix("file://"))
    for given, names in (("", 2), ("/*.jpg", 2), ("/p.jpg", 1), ("/{p,x%2520y}.jpg", 2), ("/x%2520y.jpg", 1)):
        assert len(read(open_source([uri + given]))) == names, given
    with pytest.raises(MissingInput, match="does not exist"):
        read(open_source([f"{uri}/x%20y.jpg"]))
    rows = write_manifest(tmp_path / "list.csv", [f"{uri}/p.jpg", f"{uri}/x%2520y.jpg", "file://other/p.jpg"])
    first, second, other = read(open_source([f"file:{rows}"]))
    assert (first.data, second.data) == (JPEGS["c.jpg"], JPEGS["a1.jpg"])
    assert other.error is not None
    assert (other.error.type, "host 'other'" in other.error.message) == ("BadUri", True)
    assert [label.name for label in list_labels(Files(), uri)] == ["p.jpg", "x%20y.jpg"]


@pytest.mark.parametrize("name", ["a b", "a[1]", "{x,y}", "*?", "50%", "x%20y", "zip://a::b", "ü#1"])
def test_an_output_is_where_it_says(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for uri in (str(folder), folder.as_uri(), f"file:{folder.as_uri().removeprefix('file://')}"):
        store = Store(uri)
        store.write("x/y", b"data")
        assert store.create("run.json", b"{}")
        assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == ["run.json", "x"]
        assert (store.read("x/y"), store.names("x")) == (b"data", ["y"])
        store.remove("x/y")
        store.remove("run.json")


def test_a_configuration_by_a_file_uri(tmp_path: Path) -> None:
    file = tmp_path / "a [1].yaml"
    file.write_text("model: x")
    assert read_config(file.as_uri()) == read_config(str(file)) == {"model": "x"}
