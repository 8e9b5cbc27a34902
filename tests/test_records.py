"""Identities of shards and chunks, and the selection of chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.records import ChunkId, ChunkSelection, Shard


@given(st.text(min_size=1), st.text(), st.integers(0, 10**6), st.booleans())
def test_file_names_parse_back(name, version, index, last):
    shard = Shard("u", name, "webdataset", version)
    chunk_id = ChunkId(shard.id, index, last)
    assert ChunkId.parse(chunk_id.filename) == chunk_id
    assert "/" not in chunk_id.filename


@given(st.text(min_size=1), st.text(min_size=1))
def test_other_names_have_other_keys(a, b):
    keys = [Shard("u", n, "webdataset", "v").key for n in (a, b)]
    assert (keys[0] == keys[1]) == (a == b)


def test_a_new_version_has_another_id_and_the_same_key():
    a, b = (Shard("u", "x.tar", "webdataset", v) for v in ("1", "2"))
    assert a.key == b.key
    assert a.id != b.id


@pytest.mark.parametrize("name", ["part-0.parquet", "x.tar-00000.parquet", "", "_SUCCESS"])
def test_foreign_file_names_are_not_parsed(name):
    assert ChunkId.parse(name) is None


@given(st.integers(0, 9), st.none() | st.integers(0, 9), st.frozensets(st.integers(0, 9)))
def test_a_selection_is_its_range_without_what_is_done(first, stop, done):
    wanted = ChunkSelection(first, stop, done)
    assert {i for i in range(20) if i in wanted} == set(range(first, 20 if stop is None else stop)) - done
