"""Shards made to exhaust memory or to reach outside: what they cost is bounded, and they end as error rows."""

from __future__ import annotations

import gzip
import io
import re
import struct
import tarfile
import tracemalloc
import weakref
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segbatch.codecs.decode import decode
from segbatch.errors import RecordFailure, SourceError
from segbatch.records import ChunkId, ChunkSelection, Record, Shard
from segbatch.sources import chunking
from segbatch.sources.tar import open_tar
from tests.corpus import encode, tar_bytes
from tests.inputs import open_source
from tests.sources.contract import only, read

EVIL_NAMES = [
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    "a/../../b",
    "C:\\x",
    "x\0y",
    "\x1b]0;t\x07",
    "<script>",
    "é" * 40,
]


def _gz(path: Path, *pieces: bytes) -> Path:
    with gzip.GzipFile(path, "wb", 1) as f:
        for piece in pieces:
            f.write(piece)
    return path


def _pax(key: str, value: str, kind: bytes = b"x") -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, length
    return info.tobuf() + (str(length).encode() + body).ljust(-(-length // 512) * 512, b"\0")


def _member(name: str, data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf() + data.ljust(-(-len(data) // 512) * 512, b"\0")


def test_of_many_members_only_a_chunk_is_held(tmp_path: Path):
    """What a million members cost is what ten thousand cost, but for the hashes of their keys."""
    _gz(tmp_path / "a.tar.gz", b"".join(_member(f"{n}.jpg", b"x") for n in range(10_000)), bytes(1024))
    source = open_source([str(tmp_path / "a.tar.gz")])
    living: weakref.WeakSet[_Counted] = weakref.WeakSet()
    most = total = 0
    for chunk in source.chunks(only(source), 100):
        for record in chunk.records:
            living.add(_Counted.of(record))
        most, total = max(most, len(living)), total + len(chunk.records)
    assert total == 10_000
    assert most <= 300


class _Counted:
    """Lives as long as the record it is hung on."""

    @staticmethod
    def of(record: Record) -> _Counted:
        counted = _Counted()
        object.__setattr__(record, "_counted", counted)
        return counted


def _peak(path: Path) -> tuple[int, list[Record]]:
    source = open_source([str(path)])
    shard = only(source)
    tracemalloc.start()
    try:
        records = [r for c in source.chunks(shard, 100) for r in c.records]
        return tracemalloc.get_traced_memory()[1], records
    finally:
        tracemalloc.stop()


def test_members_without_end_of_one_sample_cost_no_memory(tmp_path: Path):
    members = b"".join(_member(f"a.{n}.jpg") for n in range(20_000))
    peak, records = _peak(_gz(tmp_path / "a.tar.gz", members, bytes(1024)))
    assert [r.error.type for r in records if r.error] == ["AmbiguousImage", "CollapsedKeys"]
    assert peak < 8 * 2**20


def test_names_and_headers_without_end_cost_no_memory(tmp_path: Path):
    """Global headers that each bring a field of their own, then a name of half a megabyte."""
    fields = (_pax(f"SCHILY.xattr.{n}", "v" * 2**19, b"g") for n in range(60))
    long = _pax("path", "n" * 2**19 + ".jpg") + _member("short.jpg")
    peak, records = _peak(_gz(tmp_path / "a.tar.gz", _member("a.jpg", b"x"), *fields, long, bytes(1024)))
    assert [r.error.type if r.error else r.data for r in records] == [b"x", "CorruptShard"]
    assert "a name of more than 4096 characters" in records[1].error.message  # type: ignore[union-attr]
    assert peak < 12 * 2**20


def test_a_member_that_unpacks_to_much_is_passed_over(tmp_path: Path):
    bomb = (bytes(2**20) for _ in range(64))
    info = tarfile.TarInfo("a.jpg")
    info.size = 64 * 2**20
    path = _gz(tmp_path / "a.tar.gz", info.tobuf(), *bomb, _member("b.jpg", b"x"), bytes(1024))
    source = open_source([str(path)], max_record_bytes=2**20)
    tracemalloc.start()
    try:
        records = read(source)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    assert [r.error.type if r.error else r.data for r in records] == ["RecordTooLarge", b"x"]


def test_names_reach_nothing_outside(tmp_path: Path):
    """Members are never extracted, links never followed; a name is part of an id and of nothing else."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    data = tar_bytes([(name.replace("\0", "") + ".jpg", b"x") for name in EVIL_NAMES])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            info = tarfile.TarInfo(f"link{n}.jpg")
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
    (tmp_path / "a.tar").write_bytes(data)
    (tmp_path / "b.tar").write_bytes(out.getvalue())
    before = sorted(tmp_path.rglob("*"))
    records = read(open_source([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]))
    assert sorted(tmp_path.rglob("*")) == before
    assert {r.error.type for r in records if r.error} == {"LinkedImage"}
    assert all(r.data in (b"x", None) for r in records)


@pytest.mark.parametrize("name", [*EVIL_NAMES, "", ".", "masks/../../x", "a" * 5000, "-rf"])
def test_no_name_of_a_shard_leaves_the_folder_of_masks(name: str):
    shard = Shard("s3://b/x", name, "webdataset", version="../../v")
    filename = ChunkId(shard.id, 0, True).filename
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}", filename)
    assert ".." not in filename
    assert ChunkId.parse(filename) == ChunkId(shard.id, 0, True)


def test_a_value_that_a_dictionary_repeats_is_not_unpacked_a_thousand_times(tmp_path: Path):
    rows, value = 2000, bytes(2**20)
    images = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], pa.binary()))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images}), path, compression="zstd", dictionary_pagesize_limit=2**30,
                   store_schema=False)  # fmt: skip
    assert path.stat().st_size < 10_000
    source = open_source([str(path)], max_record_bytes=2**10)
    before = pa.total_allocated_bytes()
    most = 0
    for chunk in source.chunks(only(source), 100):
        assert {r.error.type for r in chunk.records if r.error} == {"RecordTooLarge"}
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 40 * len(value)


@pytest.mark.parametrize("kind", ["tar.gz", "parquet"])
def test_a_chunk_holds_no_more_than_its_limit(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chunking, "MAX_CHUNK_BYTES", 2500)
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"image": [bytes(1000)] * 7 + [b"x"]}), path)
    else:
        _gz(path, *(_member(f"{n}.jpg", bytes(1000)) for n in range(7)), _member("7.jpg", b"x"), bytes(1024))
    source = open_source([str(path)])
    chunks = list(source.chunks(only(source), 4))
    kinds = [r.error.type if r.error else len(r.data or b"") for c in chunks for r in c.records]
    assert kinds == [1000, 1000, *["ChunkTooLarge"] * 2, 1000, 1000, "ChunkTooLarge", 1]
    assert list(source.chunks(only(source), 4, ChunkSelection(1))) == chunks[1:]
    assert "chunk_size" in chunks[0].records[2].error.message  # type: ignore[union-attr]


def test_a_schema_that_nests_is_refused_in_few_words(tmp_path: Path):
    kind: pa.DataType = pa.int8()
    for _ in range(20):
        kind = pa.list_(kind)
    pq.write_table(
        pa.table({"image": pa.array([None], kind), **{"x" * n: [1] for n in range(1, 99)}}), tmp_path / "a.pq"
    )
    with pytest.raises(SourceError, match="no column holds encoded images") as caught:
        only(open_source([str(tmp_path / "a.pq")], format="parquet"))
    assert len(str(caught.value)) < 4000


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    whole = encode(np.zeros((8, 8, 3), np.uint8), "PNG")
    made = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return whole[:33] + made + whole[33:]


def _vp8x(width: int, height: int, rest: bytes) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + rest
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg(*sizes: tuple[int, int]) -> bytes:
    """A JPEG of 16 x 16 with a frame header for each of ``sizes`` in place of its own."""
    data = encode(np.zeros((16, 16, 3), np.uint8), "JPEG")
    at = data.index(b"\xff\xc0")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    headers = b"".join(data[at : at + 5] + struct.pack(">HH", *size) + data[at + 9 : end] for size in sizes)
    return data[:at] + headers + data[end:]


def _tiff() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "TIFF", compression="tiff_adobe_deflate")
    return out.getvalue()


def _tiff_with_width(width: int, first: bool) -> bytes:
    """A TIFF of 8 x 8 with one width more, before its own or at the end of the directory."""
    tiff = _tiff()
    (directory,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, directory)
    entries = tiff[directory + 2 : directory + 2 + 12 * count]
    entry = struct.pack("<HHII", 256, 4, 1, width)
    both = entry + entries if first else entries + entry
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + struct.pack("<H", count + 1) + both + bytes(4)


def _harmless() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(64 * 2**20), 9)
    return {
        "text.png": _png((b"zTXt", b"k\0\0" + zeros)),
        "international.png": _png((b"iTXt", b"k\0\1\0\0\0" + zeros)),
        "profile.png": _png((b"iCCP", b"k\0\0" + zeros)),
        "texts.png": _png(*[(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20 - 1), 9))] * 80),
        "width-again.tif": _tiff_with_width(50_000_000, first=False),
    }


def _bombs() -> dict[str, bytes]:
    webp = encode(np.zeros((2000, 2000, 3), np.uint8), "WEBP", lossless=True)
    gif = encode(np.zeros((8, 8, 3), np.uint8), "GIF")
    frame = gif.rindex(b"\x2c\0\0\0\0\x08\0\x08\0")
    return {
        "canvas.webp": _vp8x(16384, 16384, webp[12:]),
        "frame.webp": _vp8x(8, 8, webp[12:]),
        "second.jpg": _jpeg((16, 16), (65_500, 65_500)),
        "first.jpg": _jpeg((65_500, 65_500), (16, 16)),
        "frame.gif": gif[: frame + 5] + struct.pack("<HH", 10_000, 10_000) + gif[frame + 9 :],
        "frame-beyond-pillow.gif": gif[: frame + 5] + struct.pack("<HH", 65_000, 65_000) + gif[frame + 9 :],
        "width-twice.tif": _tiff_with_width(50_000_000, first=True),
        "samples.tif": _tiff().replace(struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 65_535)),
        "turned.bmp": encode(np.zeros((8, 8, 3), np.uint8), "BMP")[:18] + struct.pack("<ii", -(2**31), -(2**31)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(_bombs()))
def test_pictures_that_lie_about_their_size_are_refused(kind: str):
    """Whichever of two sizes a decoder would believe; and of what text and profiles unpack to, little is held."""
    data = _bombs()[kind]
    tracemalloc.start()
    try:
        with pytest.raises(RecordFailure) as caught:
            decode(data, 10**6)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.type in ("DecompressionBomb", "CorruptImage", "UnsupportedImage")


@pytest.mark.parametrize("kind", sorted(_harmless()))
def test_what_no_pixel_needs_is_not_unpacked(kind: str):
    data = _harmless()[kind]
    tracemalloc.start()
    try:
        assert decode(data, 10**6).shape == (8, 8, 3)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_pixels_beyond_the_size_are_not_unpacked():
    data = encode(np.zeros((8, 8, 3), np.uint8), "PNG")
    body = b"IDAT" + zlib.compress(bytes(64 * 2**20), 9)
    more = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = b"IEND"
    long = data[:33] + more + struct.pack(">I", 0) + end + struct.pack(">I", zlib.crc32(end))
    assert decode(long, 100).shape == (8, 8, 3)


def test_a_hostile_tar_does_not_recurse():
    """A thousand long names in a row, each for the next: read one after the other."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = b"L", 5
    names = (info.tobuf() + b"x.jpg".ljust(512, b"\0")) * 2000
    (member,) = open_tar(io.BytesIO(names + _member("short.jpg", b"d") + bytes(1024)))
    assert member.name == "x.jpg"
