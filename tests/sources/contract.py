"""What every format must do with a corpus of photographs. Used by ``test_<format>.py``."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import ClassVar

import pytest

from segbatch.records import NO_CHUNKS, Chunk, ChunkSelection, Record, Shard
from segbatch.sources import Source
from tests.corpus import Sample, photographs
from tests.inputs import open_source

SIZES = [1, 2, 3, 7, 100]


def read(source: Source, size: int = 100) -> list[Record]:
    """All records of all shards, in order."""
    return [r for shard in source.shards() for chunk in source.chunks(shard, size) for r in chunk.records]


def only(source: Source) -> Shard:
    (shard,) = source.shards()
    return shard


class SourceContract:
    """Subclass it with ``write``, ``id_of``, and ``empty`` if the format has shards without records."""

    count: ClassVar[int] = 12  # a multiple of some of SIZES, and not of others
    samples: ClassVar[list[Sample]] = photographs(count, side=48)

    def write(self, folder: Path, samples: list[Sample]) -> str:
        """Put ``samples`` into ``folder`` as one shard; what to give as the input."""
        raise NotImplementedError

    def id_of(self, name: str) -> str:
        """The image id of the sample ``name``."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        return open_source([self.write(tmp_path, self.samples)])

    @pytest.mark.parametrize("size", SIZES)
    def test_every_record_once_in_order(self, source: Source, size: int):
        shard = only(source)
        chunks = list(source.chunks(shard, size))
        records = [r for c in chunks for r in c.records]
        assert [r.data for r in records] == [data for _, data in self.samples]
        assert [r.image_id for r in records] == [self.id_of(name) for name, _ in self.samples]
        assert [r.index for r in records] == list(range(self.count))
        assert {r.error for r in records} == {None}
        assert [c.id.index for c in chunks] == list(range(-(-self.count // size)))
        assert [len(c.records) for c in chunks[:-1]] == [size] * (len(chunks) - 1)
        assert [c.id.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
        assert {c.id.shard_id for c in chunks} == {shard.id}

    @pytest.mark.parametrize("size", SIZES)
    def test_reading_again_gives_the_same(self, source: Source, size: int):
        shard = only(source)
        assert list(source.chunks(shard, size)) == list(source.chunks(shard, size))

    @pytest.mark.parametrize("size", SIZES)
    def test_a_selection_leaves_out_others_and_changes_none(self, source: Source, size: int):
        shard = only(source)
        chunks = list(source.chunks(shard, size))
        every = set(range(len(chunks)))
        last = len(chunks) - 1
        done = (set(), {0}, {last}, {0, 2}, every - {1}, every - {last}, every, {99, 1})
        selections = [ChunkSelection(done=frozenset(indices)) for indices in done]
        selections += [
            ChunkSelection(*ends) for ends in ((0, 1), (1, 2), (1, None), (last, last + 1), (2, 99), (99, None))
        ]
        selections += [ChunkSelection(1, 4, frozenset({2})), NO_CHUNKS]
        for wanted in selections:
            assert list(source.chunks(shard, size, wanted)) == [c for c in chunks if c.id.index in wanted], wanted

    @pytest.mark.parametrize("size", SIZES)
    def test_an_indexed_shard_reads_the_same_in_slices(self, source: Source, size: int):
        shard = only(source)
        (indexed,) = source.index([shard])
        assert indexed.id == shard.id
        chunks = list(source.chunks(shard, size))
        every_second = [*range(0, len(chunks), 2), len(chunks)]
        for starts in (every_second, [*source.starts(shard, size), len(chunks)]):
            assert starts[0] == 0
            slices = [ChunkSelection(*ends) for ends in itertools.pairwise(starts)]
            assert [c for wanted in slices for c in source.chunks(indexed, size, wanted)] == chunks

    def test_the_source_pickles(self, source: Source):
        shard = only(source)
        again, there = pickle.loads(pickle.dumps((source, shard)))
        assert list(again.shards()) == [shard]
        assert list(again.chunks(there, 5)) == list(source.chunks(shard, 5))

    def test_the_number_of_records_is_right_or_unknown(self, source: Source):
        assert only(source).records in (None, self.count)

    def test_a_shard_without_records_is_one_empty_chunk(self, tmp_path: Path):
        source = open_source([self.write(tmp_path, [])])
        shard = only(source)
        (chunk,) = source.chunks(shard, 5)
        assert chunk == Chunk(chunk.id, [])
        assert chunk.id.last
        assert list(source.chunks(shard, 5, NO_CHUNKS)) == []

    def test_a_chunk_of_no_records_is_a_mistake(self, source: Source):
        with pytest.raises(ValueError, match="at least one record"):
            list(source.chunks(only(source), 0))
