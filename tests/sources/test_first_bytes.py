"""Inputs that are files of another kind than their names say are named before any work, or in their error row."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.errors import MissingInput, SourceError
from tests.corpus import COMPRESS, photographs, tar_bytes, write_folder, write_manifest, write_parquet, write_tar
from tests.inputs import open_source
from tests.sources.contract import read
from tests.test_contents import POINTER, zipped

KINDS = {
    "Git LFS": POINTER,
    "ZIP": zipped(),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "HTML": b"<!DOCTYPE html><html><body>404</body></html>" + b" " * 600,
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
}
TAR = tar_bytes(photographs(2))


def refused(*inputs: Path, **options: str) -> str:
    source = open_source([str(i) for i in inputs], **options)
    with pytest.raises(SourceError) as caught:
        source.check(source.corpus().shards)
    assert not isinstance(caught.value, MissingInput)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz"])
def test_a_file_of_another_kind_is_named_by_the_plan(tmp_path: Path, kind: str, suffix: str):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(KINDS[kind])
    said = refused(path)
    assert kind in said
    assert str(path) in said


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_hundred_pointers_are_one_message_and_one_among_shards_is_an_error_row(tmp_path: Path, suffix: str):
    write_folder(tmp_path, [(f"{n:03d}{suffix}", POINTER) for n in range(100)])
    said = refused(tmp_path)
    assert "Git LFS" in said
    assert "100" in said
    assert len(said) < 400
    write = write_tar if suffix == ".tar" else write_parquet
    write(tmp_path / f"000{suffix}", photographs(2))
    source = open_source([str(tmp_path / f"00{n}{suffix}") for n in range(2)])
    source.check(source.corpus().shards)
    errors = [r.error.message for r in read(source) if r.error is not None]
    assert len(errors) == 1
    assert "Git LFS" in errors[0]


def test_images_that_are_all_pointers_are_refused(tmp_path: Path):
    write_folder(tmp_path, [(f"{n}.jpg", POINTER) for n in range(20)])
    assert "Git LFS" in refused(tmp_path)
    write_folder(tmp_path, [("0.jpg", photographs(1)[0][1])])
    source = open_source([str(tmp_path)])
    source.check(source.corpus().shards)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_tar_under_the_name_of_a_plain_one(tmp_path: Path, suffix: str):
    path = tmp_path / "x.tar"
    path.write_bytes(COMPRESS[suffix](TAR))
    said = refused(path)
    assert f".tar{suffix}" in said
    assert "format" in said
    source = open_source([str(path)], format="webdataset")
    source.check(source.corpus().shards)
    assert len(read(source)) == 2
    path.rename(tmp_path / f"x.tar{suffix}")
    source = open_source([f"{path}{suffix}"])
    source.check(source.corpus().shards)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("photos.zip", "a ZIP archive"),
        ("photos.7z", "a 7z archive"),
        ("photos.RAR", "a RAR archive"),
        ("photos.tar.lz4", "lz4 data"),
        ("photo.jpg.gz", "gzip data"),
        ("photos.tar.Z", "Unix compress"),
    ],
)
def test_archives_are_refused_by_their_names(tmp_path: Path, name: str, words: str):
    write_folder(tmp_path, [(name, b"anything")])
    assert words in refused(tmp_path / name)
    with pytest.raises(MissingInput, match=words):
        open_source([str(tmp_path)]).corpus()


def test_manifests_of_every_kind_are_still_read(tmp_path: Path):
    for suffix in (".csv", ".tsv", ".jsonl", ".csv.gz", ".jsonl.gz", ".parquet"):
        path = write_manifest(tmp_path / f"m{suffix}", ["a.jpg"])
        source = open_source([str(path)], format="manifest")
        source.check(source.corpus().shards)
