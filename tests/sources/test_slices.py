"""Read tasks of a table: each byte is read about once, whatever the row groups, and the records do not depend on it."""

from __future__ import annotations

import gzip
import io
import itertools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.records import ChunkSelection, Record, Shard
from segbatch.sources import Source
from segbatch.sources.formats import ReadOptions
from segbatch.sources.slices import GUESSED_RECORD_BYTES, SLICE_CHUNKS, RowGroups, starts_by_group
from segbatch.storage.files import Files

SIZE = 4
ROWS = 400


class CountedFiles(Files):
    """Counts the bytes that are read through streams; every other object is one byte."""

    read_bytes = 0

    def read(self, *args: Any, **options: Any) -> bytes:
        return b"x"

    def open(self, uri: str, read_ahead: bool = True) -> BinaryIO:
        stream = _CountedStream(self, uri)
        return io.BufferedReader(stream, 8 * 2**20) if read_ahead else stream  # type: ignore[return-value]


class _CountedStream(io.FileIO):
    def __init__(self, files: CountedFiles, path: str) -> None:
        super().__init__(path)
        self._files = files

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._files.read_bytes += count or 0
        return count

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        self._files.read_bytes += len(data or b"")
        return data


def write(path: Path, columns: dict[str, Any], groups: list[int]) -> str:
    """Write a table with row groups of these sizes, which are repeated up to its end."""
    table = pa.table(columns)
    sizes, row = itertools.cycle(groups), 0
    with pq.ParquetWriter(path, table.schema, compression="none") as writer:
        while row < table.num_rows:
            size = min(next(sizes), table.num_rows - row)
            writer.write_table(table.slice(row, size), row_group_size=max(1, size))
            row += size
    return str(path)


def blobs(seed: int, size: int = 20_000) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [b"\xff\xd8\xff" + random.bytes(size) for _ in range(ROWS)]


def planned(uri: str, **options: Any) -> tuple[Source, CountedFiles, Shard]:
    files = CountedFiles()
    source = Source([uri], ReadOptions(files, **options))
    (shard,) = source.shards()
    return source, files, shard


def slices(source: Source, shard: Shard) -> list[ChunkSelection]:
    ends = [*source.starts(shard, SIZE), -(-(shard.records or 0) // SIZE)]
    return [ChunkSelection(first, stop) for first, stop in itertools.pairwise(ends)]


def read(source: Source, shard: Shard, wanted: list[ChunkSelection]) -> list[Record]:
    return [record for part in wanted for chunk in source.chunks(shard, SIZE, part) for record in chunk.records]


IMAGES = blobs(0)
COLUMNS: dict[str, dict[str, Any]] = {
    "with ids": {"id": [f"r{i}" for i in range(ROWS)], "image": IMAGES},
    "with equal ids": {"id": [f"r{i % 7}" for i in range(ROWS)], "image": IMAGES},
    "without ids": {"image": IMAGES},
    "with nulls": {"id": [None if i % 5 == 0 else f"{i}" for i in range(ROWS)], "image": [None, *IMAGES[1:]]},
    "with lists": {"id": list(range(ROWS)), "boxes": [[i] * 50 for i in range(ROWS)], "image": IMAGES},
    "in a struct": {"image": [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(IMAGES)]},
}
GROUPS = {
    "one": [ROWS],
    "large": [150],
    "as large as slices": [SIZE * SLICE_CHUNKS],
    "not aligned": [37],
    "tiny": [3],
    "of one row": [1],
    "mixed": [1, 90, 2, 2, 300],
}


@pytest.mark.parametrize(
    ("columns", "groups"),
    [
        *(("with ids", groups) for groups in GROUPS),
        *((columns, "mixed") for columns in COLUMNS if columns != "with ids"),
    ],
)
def test_each_byte_is_read_about_once_and_the_records_are_those_of_one_pass(
    tmp_path: Path, columns: str, groups: str
) -> None:
    uri = write(tmp_path / "a.parquet", COLUMNS[columns], GROUPS[groups])
    source, files, shard = planned(uri)
    parts = slices(source, shard)
    (indexed,) = source.index([shard]) if len(parts) > 1 else [shard]
    files.read_bytes = 0
    records = read(source, indexed, parts)
    assert files.read_bytes <= 1.25 * shard.size
    assert records == read(source, shard, [ChunkSelection()])
    assert len({record.image_id for record in records}) == ROWS


@pytest.mark.parametrize("groups", ["one", "large", "mixed"])
def test_what_is_left_of_a_row_group_is_read_once(tmp_path: Path, groups: str) -> None:
    source, files, shard = planned(write(tmp_path / "a.parquet", COLUMNS["with ids"], GROUPS[groups]))
    done = frozenset(range(60)) | frozenset({65, 70, 99})
    parts = [ChunkSelection(part.first, part.stop, done) for part in slices(source, shard)]
    files.read_bytes = 0
    records = read(source, shard, parts)
    assert files.read_bytes <= 1.25 * shard.size
    chunks = [i for i in range(ROWS // SIZE) if i not in done]
    assert [record.index for record in records] == [SIZE * chunk + k for chunk in chunks for k in range(SIZE)]


def test_a_row_group_is_read_without_being_held(tmp_path: Path) -> None:
    columns = {"id": [f"r{i}" for i in range(ROWS)], "image": blobs(2, 50_000)}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False, write_batch_size=8)
    source, _, shard = planned(str(path))
    begun, held = pa.total_allocated_bytes(), []
    for _ in source.chunks(shard, SIZE, ChunkSelection()):
        held.append(pa.total_allocated_bytes() - begun)
    assert max(held) < 0.6 * shard.size  # two buffers of 4 MB, and a page


def test_the_driver_reads_the_ids_alone(tmp_path: Path) -> None:
    columns = {"id": [f"r{i // 2}" for i in range(ROWS)], "image": blobs(1, 80_000)}
    source, files, shard = planned(write(tmp_path / "a.parquet", columns, [40]))
    assert files.read_bytes < 0.15 * shard.size  # footer, and the first page of images
    files.read_bytes = 0
    source.index([shard])
    assert files.read_bytes < 0.05 * shard.size


def test_a_manifest_is_divided_for_its_images_and_a_compressed_one_too(tmp_path: Path) -> None:
    uris = [f"images/{i:07}.jpg" for i in range(ROWS)]
    table = write(tmp_path / "a.parquet", {"uri": uris}, [ROWS])
    text = tmp_path / "b.csv.gz"
    text.write_bytes(gzip.compress("\n".join(["uri", *uris]).encode()))
    for uri, options in ((table, {"format": "manifest"}), (table, {}), (str(text), {})):
        source, _, shard = planned(uri, **options)
        assert source.starts(shard, SIZE) == list(range(0, ROWS // SIZE, SLICE_CHUNKS))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_text_manifest_is_read_about_once_by_all_slices(tmp_path: Path, name: str) -> None:
    lines = [f"images/{'x' * 80}{i:07}.jpg" for i in range(20_000)]
    rows = ["uri", *lines] if name.endswith("csv") else [f'{{"uri": "{uri}"}}' for uri in lines]
    (tmp_path / name).write_text("\n".join(rows))
    source, files, shard = planned(str(tmp_path / name))
    starts = source.starts(shard, 256)
    assert len(starts) == 10
    files.read_bytes = 0
    for start in starts:
        list(source.chunks(shard, 256, ChunkSelection(start, start + SLICE_CHUNKS)))
    assert files.read_bytes <= 1.6 * shard.size


def test_a_table_of_paths_is_divided_for_its_images(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(IMAGES[0])
    columns = {"image": [{"bytes": None, "path": "a.jpg"}] * ROWS}
    source, _, shard = planned(write(tmp_path / "a.parquet", columns, [ROWS]))
    assert source.starts(shard, SIZE) == list(range(0, ROWS // SIZE, SLICE_CHUNKS))


@given(
    st.lists(st.integers(0, 5000), max_size=40),
    st.integers(1, 300),
    st.sampled_from([50.0, 3e3, 1e5, 1e7]),
    st.booleans(),
)
def test_a_read_task_repeats_a_tenth_of_what_its_predecessor_reads(
    groups: list[int], size: int, row_bytes: float, is_named: bool
) -> None:
    starts = starts_by_group(RowGroups.pack(groups, footer_bytes=1000), size, row_bytes, is_named)
    assert starts[0] == 0
    begins = list(itertools.accumulate(groups, initial=0))
    for first, start in itertools.pairwise(starts):
        assert start - first >= SLICE_CHUNKS
        assert start * size < begins[-1]
        before = start * size - max(begin for begin in begins if begin <= start * size)
        record_bytes = row_bytes + is_named * GUESSED_RECORD_BYTES
        assert before * row_bytes <= 0.1 * (start - first) * size * record_bytes + 1e-6


def test_a_large_manifest_is_read_in_parallel_and_its_text_not_much_more_than_once_an_image() -> None:
    rows, size, row_bytes = 10**6, 256, 100.0
    starts = starts_by_group(RowGroups.pack([rows], 1000), size, row_bytes, is_named=True)
    assert len(starts) >= 100
    text = sum(start * size * row_bytes for start in starts)
    assert text <= 0.1 * rows * GUESSED_RECORD_BYTES
