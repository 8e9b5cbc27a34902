"""Files of another kind than was expected are named by their first bytes."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from segbatch import models
from segbatch.config.base import read_config
from segbatch.contents import OF_WEIGHTS, looks_like, recognized
from segbatch.errors import ModelError, SegbatchError, SpecError
from segbatch.evaluation.label_images import LabelReader
from segbatch.models.weights import read_labels
from segbatch.storage.files import Files
from tests.corpus import COMPRESS, encode, photograph, tar_bytes

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.jpg", b"x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POINTER, ["Git LFS pointer", "git lfs pull"]),
        (zipped(), ["ZIP", "unpack"]),
        (b"7z\xbc\xaf\x27\x1c" + bytes(30), ["7z", "unpack"]),
        (b"Rar!\x1a\x07\x01\0" + bytes(30), ["RAR", "unpack"]),
        (COMPRESS[".gz"](b"x"), ["gzip", "decompress"]),
        (COMPRESS[".bz2"](b"x"), ["bzip2", "decompress"]),
        (COMPRESS[".xz"](b"x"), ["xz", "decompress"]),
        (COMPRESS[".zst"](b"x"), ["zstd", "decompress"]),
        (b"\x04\x22\x4d\x18" + bytes(30), ["lz4", "decompress"]),
        (b"\xef\xbb\xbf <!-- x -->\n<!DOCTYPE HTML><html>", ["HTML", "download"]),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', ["XML", "download"]),
        (b'{"error": {"code": 403}}', ["JSON", "download"]),
        (tar_bytes([("a.jpg", b"x")]), ["tar archive", ".tar"]),
        (tar_bytes([("a.jpg", b"x")], tarfile.GNU_FORMAT), ["tar archive", ".tar"]),
        (b"PAR1" + bytes(30), ["Parquet"]),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(40), ["HEIC"]),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + bytes(40), ["HEIC"]),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + bytes(40), ["MP4"]),
        (encode(photograph(0, 32)), ["JPEG"]),
    ],
)
def test_a_file_is_named_with_what_to_do(data: bytes, words: list[str]):
    said = recognized(data)
    assert all(word in said for word in words), said
    assert recognized(data[:300]) == said


@pytest.mark.parametrize("data", [b"", b"uri\na.jpg\n", b"road\nsky\n", b"\x0a\x05caffe", bytes(600)])
def test_what_is_of_no_known_kind_is_not_named(data: bytes):
    assert recognized(data) == ""


def test_no_safetensors_file_is_taken_for_another():
    whole = safetensors.numpy.save({"weight": np.zeros(4, np.float32)})
    # The file begins with the length of its header, which may be any number; what follows is always a brace.
    for magic in (b"\x1f\x8b\x08", b"\x80\x02", b'{"', b"BZ", b"PK\x03\x04", b"\x04\x22", b"\x1f\x9d"):
        length = int.from_bytes(magic.ljust(8, b"\0"), "little")
        data = struct.pack("<Q", length) + whole[8:]
        assert recognized(data, OF_WEIGHTS) == "", magic


def test_what_cannot_be_named_is_told_by_its_look():
    assert looks_like(bytes(9)) == "zero bytes"
    assert looks_like("naïve notes\n".encode()) == "text"
    assert looks_like(b"\x01\x02\xfe") == ""


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "w.caffemodel", "w.ckpt.pth"])
@pytest.mark.parametrize(
    ("data", "word"), [(POINTER, "Git LFS"), (b"<html><body>404", "HTML"), (COMPRESS[".zst"](b"x"), "zstd")]
)
def test_weights_of_another_kind_are_named(tmp_path: Path, name: str, data: bytes, word: str):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(ModelError, match=word):
        models.describe("deeplabv3plus_mobilenet_v2", str(tmp_path / name), str(tmp_path / "classes.txt"), check=True)


def test_a_list_of_classes_a_label_and_a_configuration_of_another_kind_are_named(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(POINTER)
    with pytest.raises(SegbatchError, match="Git LFS"):
        read_labels(str(path), None, "fcn8s")
    with pytest.raises(SpecError, match="Git LFS"):
        LabelReader(Files()).read(str(path))
    with pytest.raises(SpecError, match="Git LFS"):
        read_config(path)
