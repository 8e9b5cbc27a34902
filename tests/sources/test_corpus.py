"""The corpus root: ids do not depend on how inputs are spelled, and what lies outside is refused."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from segbatch.sources import OutsideRoot
from segbatch.sources.corpus import common_root, prefix_below
from tests.corpus import photographs, write_tar
from tests.inputs import open_source


@pytest.mark.parametrize(
    ("folders", "root"),
    [
        (["/d/in"], "/d/in"),
        (["/d/in/a", "/d/in/b"], "/d/in"),
        (["/d/in", "/d/inner"], "/d"),
        (["/d", "/e"], "/"),
        (["/", "/e"], "/"),
        (["s3://b/in/a", "s3://b/in/b/c"], "s3://b/in"),
        (["s3://b/in/a", "s3a://b/in/b"], "s3://b/in"),
        (["s3://b/in/", "s3://b/in"], "s3://b/in"),
        (["s3://b", "s3://c"], "s3://"),
        (["s3://b/in", "gs://b/in"], ""),
        (["s3://b/in", "/d"], ""),
        (["hf://datasets/u/n/train", "hf://datasets/u/n/test"], "hf://datasets/u/n"),
    ],
)
def test_the_common_root_of_folders(folders: list[str], root: str) -> None:
    assert common_root(folders) == root


@pytest.mark.parametrize(
    ("root", "folder", "prefix"),
    [
        ("/d/in", "/d/in", ""),
        ("/d/in", "/d/in/a/b", "a/b/"),
        ("/", "/a", "a/"),
        ("s3://b/in", "s3a://b/in/a", "a/"),
        ("s3://b/in", "s3://b/in/", "/"),
        ("s3://b/in", "s3://b/in//a", "/a/"),
        ("s3://", "s3://b/in", "b/in/"),
        ("", "s3://b/in", "s3/b/in/"),
        ("", "/d/in", "d/in/"),
    ],
)
def test_what_names_have_before_them(root: str, folder: str, prefix: str) -> None:
    assert prefix_below(root, folder, folder) == prefix


@pytest.mark.parametrize(
    ("root", "folder"),
    [
        ("/d/in", "/d/inner"),
        ("/d/in", "/d"),
        ("/d/in", "/e/in"),
        ("s3://b/in", "s3://c/in"),
        ("s3://b/in", "gs://b/in"),
        ("s3://b/in", "/b/in"),
        ("hf://datasets/u/n", "hf://datasets/u/n@v2/a"),
    ],
)
def test_what_lies_outside_of_the_root_is_named_with_root_and_remedy(root: str, folder: str) -> None:
    with pytest.raises(OutsideRoot) as caught:
        prefix_below(root, folder, f"{folder}/*.tar")
    for part in (f"{folder}/*.tar: lies outside of {root}", "choose another --output", "move the input"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_credentials_are_not_in_the_refusal() -> None:
    with pytest.raises(OutsideRoot) as caught:
        prefix_below("s3://key:secret@b/in", "s3://key:secret@c", "s3://key:secret@c/*")
    assert "secret" not in str(caught.value)


def test_every_spelling_gives_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("000.tar", "001.tar", "more/002.tar"):
        write_tar(tmp_path / "in" / name, photographs(1, side=32))
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("HOME", str(tmp_path))
    full = str(tmp_path / "in")
    spellings = [
        [full],
        [f"{full}/"],
        ["."],
        ["../in"],
        ["./../in/more/.."],
        ["~/in"],
        [f"file://{full}"],
        [str(tmp_path / "link")],
        ["00{0..1}.tar", "more"],
        ["*.tar", f"{full}/more/*.tar"],
        ["000.tar", f"file://{full}/001.tar", "../link/more/002.tar"],
        ["**/*.tar"],
    ]
    for inputs in spellings:
        corpus = open_source(inputs).corpus(full)
        assert sorted(s.name for s in corpus.shards) == ["000.tar", "001.tar", "more/002.tar"], inputs
        assert len({s.id for s in corpus.shards}) == 3


def test_a_root_reached_by_another_link_is_the_same(tmp_path: Path) -> None:
    write_tar(tmp_path / "disk" / "in" / "a.tar", photographs(1, side=32))
    (tmp_path / "data").symlink_to("disk")
    by_link = open_source([str(tmp_path / "data/in")]).corpus()
    assert by_link.root == str(tmp_path / "data" / "in")
    (there,) = open_source([os.path.realpath(tmp_path / "data/in/a.tar")]).corpus(by_link.root).shards
    assert there.id == by_link.shards[0].id


def test_what_a_listing_and_a_single_look_tell_of_an_object_is_one_version() -> None:
    store = fsspec.filesystem("memory")
    for number in range(3):
        store.pipe(f"/growing/in/{number}.jpg", b"x")
    spellings = ["memory://growing/in", "memory://growing/in/*.jpg", "memory://growing/in/{0..2}.jpg"]
    corpora = [open_source([spelling]).corpus() for spelling in spellings]
    names = [f"memory://growing/in/{number}.jpg" for number in range(3)]
    assert len({c.shards[0].id for c in [*corpora, open_source(names).corpus()]}) == 1
    assert {c.root for c in corpora} == {"memory://growing/in"}
