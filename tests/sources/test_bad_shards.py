"""A damaged shard gives what is whole in it and then says what is wrong: no exception, and no silence."""

from __future__ import annotations

import gc
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.records import ChunkSelection
from tests.corpus import tar_bytes, write_parquet
from tests.inputs import open_source
from tests.sources.bad_shards import GOOD, BadShard, bad_shards
from tests.sources.contract import only, read


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BadShard]:
    return bad_shards(tmp_path_factory.mktemp("bad"))


# The names are needed before any fixture runs.
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            metafunc.parametrize("kind", sorted(bad_shards(Path(folder))))


@pytest.mark.parametrize("size", [1, 2, 100])
def test_good_records_come_out_and_bad_ones_say_why(shards: dict[str, BadShard], kind: str, size: int):
    bad = shards[kind]
    source = open_source([str(bad.path)])
    shard = only(source)
    chunks = list(source.chunks(shard, size))
    records = [r for c in chunks for r in c.records]
    assert [r.error.type if r.error else r.data for r in records] == bad.records
    assert [c.id.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [r.index for r in records] == list(range(len(records)))
    assert len({r.image_id for r in records}) == len(records)
    for record in records:
        if record.error is not None:
            assert record.data is None
            assert record.error.stage == "read"
            assert 15 < len(record.error.message) < 400, record.error.message
    for done in ({0}, {len(chunks) - 1}, {1, 2}):
        wanted = ChunkSelection(done=frozenset(done))
        assert list(source.chunks(shard, size, wanted)) == [c for c in chunks if c.id.index in wanted]
    for indexed in source.index([shard]):
        wanted = ChunkSelection(1, 2)
        assert list(source.chunks(indexed, size, wanted)) == [c for c in chunks if c.id.index in wanted]


def test_messages_say_where_and_what_to_do(shards: dict[str, BadShard]):
    said = {
        kind: " | ".join(r.error.message for r in read(open_source([str(bad.path)])) if r.error)
        for kind, bad in shards.items()
    }
    assert "no image among the members (json) of sample 'b'" in said["json-only.tar"]
    assert "its images are not adjacent; pack the shard sorted by key" in said["duplicate.tar"]
    assert "has 2 images: left.jpg, right.jpg; choose one by --image-member" in said["two-inputs.tar"]
    assert "no-samples.tar: 2 of the 2 members are not part of a sample" in said["no-samples.tar"]
    assert "the records before it are kept" in said["cut-in-data.tar"]
    assert "at byte" in said["cut-in-data.tar"]
    assert "no tar header near byte" in said["hole-of-zeros.tar"]
    assert "the gzip stream breaks off" in said["cut.tar.gz"]
    assert "not a whole Parquet file" in said["cut.parquet"]
    assert "row group 1 cannot be read" in said["group-overwritten.parquet"]
    assert "row 1 has no image bytes (null)" in said["null.parquet"]


def test_a_bad_shard_is_closed_when_it_has_been_read(shards: dict[str, BadShard], kind: str):
    source = open_source([str(shards[kind].path)])
    shard = only(source)
    gc.disable()  # which would close it later
    try:
        for _ in source.chunks(shard, 3):
            pass
        held = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    finally:
        gc.enable()
    assert os.path.realpath(shards[kind].path) not in held


def test_a_shard_that_is_gone_from_its_folder_is_an_error_row(tmp_path: Path):
    (tmp_path / "another.tar").touch()
    tar, parquet = tmp_path / "a.tar", tmp_path / "b.parquet"
    tar.write_bytes(tar_bytes(GOOD))
    write_parquet(parquet, GOOD)
    source = open_source([str(tar), str(parquet)])
    planned = list(source.shards())
    tar.unlink()
    parquet.unlink()
    for shard in planned:
        (chunk,) = source.chunks(shard, 100)
        assert [r.error.type for r in chunk.records if r.error] == ["MissingObject"]


def test_columns_that_lack_are_found_before_the_work_or_are_an_error_row(tmp_path: Path):
    a = write_parquet(tmp_path / "a.parquet", GOOD)
    b = write_parquet(tmp_path / "b.parquet", GOOD, hugging_face=True)
    source = open_source([str(a), str(b)], id_column="id")
    records = read(source)
    assert [r.data for r in records[:-1]] == [data for _, data in GOOD]
    assert records[-1].error is not None
    assert records[-1].error.type == "WrongSchema"
    assert (
        "id_column = 'id' is not a column of text, bytes, numbers or times; the columns are image"
        in records[-1].error.message
    )


def test_repeated_and_lacking_ids_in_parquet_are_made_unique(tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", [("a", b"0"), ("", b"1"), ("a", b"2"), ("b", b"3")], rows_per_group=2)
    source = open_source([str(path)])
    shard = only(source)
    ids = [r.image_id for c in source.chunks(shard, 1) for r in c.records]
    assert ids == ["a.parquet/a", "a.parquet/#1", "a.parquet/a#2", "a.parquet/b"]
    assert [r.image_id for c in source.chunks(shard, 1, ChunkSelection(2)) for r in c.records] == ids[2:]


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
def test_ids_and_uris_in_parquet_that_are_not_utf8(tmp_path: Path, text: pa.DataType):
    texts = pa.array([b"caf\xe9", None, b"b"], pa.binary()).view(pa.string()).cast(text, safe=False)
    pq.write_table(pa.table({"id": texts, "image": [b"0", b"1", b"2"]}), tmp_path / "a.parquet")
    assert [(r.image_id, r.data) for r in read(open_source([str(tmp_path / "a.parquet")]))] == [
        ("a.parquet/caf\\xe9", b"0"), ("a.parquet/#1", b"1"), ("a.parquet/b", b"2")
    ]  # fmt: skip
    pq.write_table(pa.table({"uri": texts}), tmp_path / "m.parquet")
    records = read(open_source([str(tmp_path / "m.parquet")]))
    assert [r.error.type for r in records if r.error] == ["MissingObject", "MissingUri", "MissingObject"]


def test_links_in_a_tar_are_error_rows(tmp_path: Path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, data in [("a.jpg", tarfile.REGTYPE, b"x"), ("b.jpg", tarfile.LNKTYPE, b""),
                                 ("c.jpg", tarfile.SYMTYPE, b""), ("d", tarfile.DIRTYPE, b""),
                                 ("e.jpg", tarfile.REGTYPE, b"y")]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "a.jpg" if kind in b"12" else ""
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    records = read(open_source([str(tmp_path / "a.tar")]))
    assert [r.error.type if r.error else r.data for r in records] == [b"x", "LinkedImage", "LinkedImage", b"y"]
    assert records[1].error is not None
    assert "b.jpg: is a link to a.jpg" in records[1].error.message


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path: Path, format: int):
    long = "/".join(["folder-of-some-length"] * (6 if format == tarfile.USTAR_FORMAT else 12))
    members = [(f"{long}/a.jpg", b"0"), ("é/b.jpg", b"1"), ("c.d.e/f.jpg", b"2")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members, format))
    records = read(open_source([str(tmp_path / "a.tar")]))
    assert [(r.image_id, r.data) for r in records] == [
        (f"a.tar/{name.removesuffix('.jpg')}", data) for name, data in members
    ]


def test_any_cut_gives_a_row_that_says_so(tmp_path: Path):
    small = [(f"{n}.jpg", bytes([n]) * 700) for n in range(3)]
    tar = tar_bytes(small)
    path = tmp_path / "a.tar"
    for end in range(0, 3 * 1536 + 1, 97):
        path.write_bytes(tar[:end])
        *whole, last = read(open_source([str(path)]))
        assert [r.data for r in whole] == [data for _, data in small][: len(whole)], end
        assert len(whole) == sum(end >= 1536 * n + 512 + 700 for n in range(3)), end
        assert last.error is not None, end
        assert last.error.type == "TruncatedShard", end


def test_changed_bytes_never_raise_and_never_end_in_silence(tmp_path: Path):
    rng = np.random.default_rng(3)
    small = [(f"{n}.jpg", bytes([n]) * 700) for n in range(3)]
    for name, data in (
        ("a.tar", tar_bytes(small)),
        ("a.parquet", write_parquet(tmp_path / "p.parquet", small, rows_per_group=2).read_bytes()),
    ):
        for _ in range(60):
            changed = bytearray(data)
            for at in rng.integers(0, len(data) if name == "a.parquet" else 3 * 1536, 3):
                changed[at] = rng.integers(256)
            (tmp_path / name).write_bytes(changed)
            records = read(open_source([str(tmp_path / name)]))
            assert len(records) >= 3 or any(r.error for r in records)


def test_a_footer_that_declares_other_counts_is_an_error_row(tmp_path: Path):
    """Each byte of the footer that may be the number of rows (6, as Thrift writes it: 12) is made 7."""
    path = write_parquet(tmp_path / "a.parquet", GOOD)
    data = path.read_bytes()
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    types = set()
    for at in (at for at in range(begin, len(data) - 8) if data[at] == 12):
        path.write_bytes(data[:at] + b"\x0e" + data[at + 1 :])
        records = read(open_source([str(path)]))
        assert len(records) >= 6 or any(r.error for r in records)
        types |= {r.error.type for r in records if r.error and "its footer declares" in r.error.message}
    assert types == {"CorruptShard"}
