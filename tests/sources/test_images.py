"""Loose images in shards of one chunk: what a name that comes, goes or changes does to them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbatch.errors import SourceError
from segbatch.leaves import Overlaps, bits_of, leaf_name
from segbatch.records import NO_CHUNKS, Shard
from segbatch.sources import divided
from segbatch.sources.images import ImageList, Images, image_shard
from segbatch.storage.base import ObjectInfo
from tests.corpus import photographs, write_folder
from tests.inputs import open_source
from tests.sources.contract import SIZES

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)
CORPUS = st.dictionaries(NAMES, st.integers(0, 3), min_size=1, max_size=40)

SETTINGS = settings(deadline=None, max_examples=60)


def leaves(versions: dict[str, int], size: int) -> list[Shard]:
    return Images().divide(image_shard("/r", [ObjectInfo(name, 10, str(v)) for name, v in versions.items()]), size)


def names(shard: Shard) -> list[str]:
    return [image.name for image in ImageList.of(shard).images()]


def changes(before: list[Shard], after: list[Shard]) -> tuple[set[str], set[str]]:
    """Names of shards that left, and that came, as another name or another version."""
    old, new = ({s.id: s.name for s in shards} for shards in (before, after))
    return {old[i] for i in old.keys() - new.keys()}, {new[i] for i in new.keys() - old.keys()}


@given(CORPUS, st.integers(1, 9))
@SETTINGS
def test_every_name_is_in_one_leaf_in_order_and_a_leaf_is_one_chunk(versions: dict[str, int], size: int) -> None:
    shards = leaves(versions, size)
    assert sorted(n for s in shards for n in names(s)) == sorted(versions)
    assert all(names(s) == sorted(names(s)) and 1 <= len(names(s)) == s.records <= size for s in shards)
    assert len({s.key for s in shards}) == len(shards)
    assert all(bits_of(s.key) is not None and leaf_name(bits_of(s.key) or "") == s.name for s in shards)


@given(CORPUS, st.integers(1, 9), st.randoms(use_true_random=False))
@SETTINGS
def test_the_order_of_a_listing_does_not_matter(versions: dict[str, int], size: int, rng: random.Random) -> None:
    items = list(versions.items())
    rng.shuffle(items)
    assert leaves(dict(items), size) == leaves(versions, size)


@given(CORPUS, st.integers(1, 9), NAMES)
@SETTINGS
def test_a_name_that_comes_goes_or_changes_touches_one_leaf(versions: dict[str, int], size: int, name: str) -> None:
    """Or those that it is split into, or merged with: one leaf on one side at least, and all of them overlap."""
    without = {n: v for n, v in versions.items() if n != name} or {"other": 0}
    pairs = [(without, without | {name: 0}), (without | {name: 0}, without | {name: 1})]
    for less, more in pairs:
        left, came = changes(leaves(less, size), leaves(more, size))
        assert min(len(left), len(came)) <= 1
        assert 1 <= len(came) <= 2
        keys = Overlaps(s.key for s in leaves(more, size) if s.name in came)
        assert all(s.key in keys for s in leaves(less, size) if s.name in left)
        untouched = [s for s in leaves(less, size) if s.name not in left]
        assert not any(s.key in keys for s in untouched)


def test_a_name_that_sorts_first_renames_nothing() -> None:
    versions = {f"img{i:03}.jpg": 0 for i in range(400)}
    before, after = leaves(versions, 8), leaves(versions | {"0000.jpg": 0}, 8)
    left, came = changes(before, after)
    assert (len(left), len(came)) in ((1, 1), (0, 1), (1, 2))
    assert len(before) < 2 * 400 / 8, "leaves are more than half full on average"


def test_a_file_that_is_called_like_a_leaf_is_none() -> None:
    tar = Shard("/r/images-01.tar", "images-01.tar", "webdataset", "v")
    same_slug = Shard("/r/images-01", "images-01", "webdataset", "v")
    (leaf, *_) = leaves({"a": 0}, 1)
    assert (bits_of(tar.key), bits_of(same_slug.key), bits_of(leaf.key)) == (None, None, "")
    everything = Overlaps([leaf.key])
    assert tar.key not in everything
    assert tar.key in Overlaps([tar.key])


@pytest.mark.parametrize("size", SIZES)
def test_divided_shards_are_read_as_the_contract_demands(tmp_path: Path, size: int) -> None:
    samples = photographs(12, side=32)
    source = open_source([str(write_folder(tmp_path / "in", samples))])
    records = []
    for shard in divided(source.shards(), size):
        (chunk,) = source.chunks(shard, size)
        assert (chunk.id.shard_id, chunk.id.index, chunk.id.last) == (shard.id, 0, True)
        assert len(chunk.records) == shard.records <= size
        assert [r.index for r in chunk.records] == list(range(len(chunk.records)))
        assert list(source.chunks(shard, size, NO_CHUNKS)) == []
        records += chunk.records
    assert {r.image_id: r.data for r in records} == dict(samples)
    assert {r.source for r in records} == {str(tmp_path / "in" / name) for name, _ in samples}


def test_spellings_of_the_same_images_give_the_same_shards(tmp_path: Path) -> None:
    write_folder(tmp_path / "in" / "a", photographs(3, side=32))
    write_folder(tmp_path / "in" / "b", photographs(2, "PNG", side=32))
    files = sorted((tmp_path / "in").rglob("*.*"))
    spellings = [[tmp_path / "in"], [tmp_path / "in/a", tmp_path / "in/b"], files, files[::-1], [tmp_path / "in/*/*"]]
    planned = {str(s): open_source([str(i) for i in s]).corpus() for s in spellings}
    assert {corpus.root for corpus in planned.values()} == {str(tmp_path / "in")}
    first, *others = (divided(corpus.shards, 2) for corpus in planned.values())
    assert all(other == first for other in others)


def test_an_image_that_two_inputs_name_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", photographs(2, side=32))
    (tmp_path / "link").symlink_to(folder)
    for again in (folder / "0000-astronaut.jpg", tmp_path / "in" / "*.jpg"):
        with pytest.raises(SourceError, match=r"0000-astronaut.jpg: is named by two inputs"):
            open_source([str(folder), str(again)]).corpus()
    with pytest.raises(SourceError, match=r"0000-astronaut.jpg: is named by two inputs"):
        open_source([str(folder), str(tmp_path / "link")]).corpus(str(folder))


def test_above_a_million_images_a_manifest_is_the_remedy() -> None:
    with pytest.raises(SourceError, match=r"/r: 1,000,001 loose images, more than 1,000,000.*Write a manifest"):
        image_shard("/r", [ObjectInfo("a", 1, "v")] * 1_000_001)
