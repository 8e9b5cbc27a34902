"""Compressed streams: whatever they are cut or damaged by is an error, and what they cost is bounded."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable

import numpy as np
import pytest

from segbatch.errors import RecordFailure
from segbatch.sources.compression import MAGIC_BYTES, Decompressed, compression_of
from tests.corpus import COMPRESS

KINDS = {"gzip": COMPRESS[".gz"], "bzip2": COMPRESS[".bz2"], "xz": COMPRESS[".xz"], "zstd": COMPRESS[".zst"]}
DATA = np.random.default_rng(1).bytes(3000) + bytes(50_000)


def unpacked(kind: str, data: bytes, piece: int = 777) -> bytes:
    stream, parts = Decompressed(kind, io.BytesIO(data)), []
    while part := stream.read(piece):
        assert len(part) <= piece
        parts.append(part)
    return b"".join(parts)


each = pytest.mark.parametrize(("kind", "compress"), KINDS.items())


@each
def test_what_was_packed_comes_out_also_of_several_streams(kind: str, compress: Callable[[bytes], bytes]):
    packed = compress(DATA)
    assert compression_of(packed[:MAGIC_BYTES]) == kind
    assert unpacked(kind, packed) == DATA
    assert unpacked(kind, packed + compress(b"") + compress(b"more")) == DATA + b"more"
    assert compression_of(compress(b"")[:MAGIC_BYTES]) == kind


@each
def test_any_cut_is_an_error(kind: str, compress: Callable[[bytes], bytes]):
    packed = compress(DATA)
    for end in range(MAGIC_BYTES, len(packed), 13):
        with pytest.raises(RecordFailure) as caught:
            unpacked(kind, packed[:end])
        assert caught.value.type == "TruncatedShard", end


@each
def test_garbage_within_and_after_a_stream_is_an_error(kind: str, compress: Callable[[bytes], bytes]):
    packed = compress(DATA)
    for data in (packed[:MAGIC_BYTES] + b"\xff" * 90, packed + b"garbage" * 9):
        with pytest.raises(RecordFailure) as caught:
            unpacked(kind, data)
        assert caught.value.type in ("CorruptShard", "TruncatedShard")
        assert len(str(caught.value)) < 300


@each
def test_an_error_of_the_store_is_not_taken_for_damage(kind: str, compress: Callable[[bytes], bytes]):
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 1000:
                raise ConnectionResetError("reset by peer")
            return super().read(min(size or 0, 500))

    stream = Decompressed(kind, Broken(compress(DATA)))
    with pytest.raises(ConnectionResetError, match="reset by peer"):
        list(iter(lambda: stream.read(100), b""))


def test_a_dictionary_beyond_the_limit_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    header = lzma.compress(b"x", filters=filters)
    with pytest.raises(RecordFailure, match="the xz stream is damaged after 0 bytes"):
        unpacked("xz", header)


@pytest.mark.parametrize("name", [b"a.jpg", b"BZh9.jpg\0\0", b"BZh91AY.jp", b"", b"PK\x03\x04"])
def test_what_is_not_compressed_is_left_alone(name: bytes):
    assert compression_of(name[:MAGIC_BYTES]) is None
