"""What inputs name: patterns, folders, mixes, and what is said when nothing exists."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from segbatch.errors import SourceError, SpecError
from segbatch.storage.listing import expand_braces
from tests.corpus import photographs, write_folder, write_manifest, write_parquet, write_tar
from tests.inputs import open_source
from tests.sources.contract import read

SAMPLES = photographs(4, side=32)


def names(*inputs: Path | str, **options: str) -> list[str]:
    return [s.name for s in open_source([str(i) for i in inputs], **options).shards()]


def images(*inputs: Path | str) -> list[str]:
    return [r.image_id for r in read(open_source([str(i) for i in inputs]))]


def refusal(*inputs: Path | str, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        names(*inputs, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{0..3}", ["0", "1", "2", "3"]),
        ("{0..10}", [str(n) for n in range(11)]),
        ("{00..10}", [f"{n:02}" for n in range(11)]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{8..010}", ["008", "009", "010"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..9..3}", ["0", "3", "6", "9"]),
        ("{9..0..4}", ["9", "5", "1"]),
        ("{-1..1}", ["-1", "0", "1"]),
        ("{train,val}/{0..1}", ["train/0", "train/1", "val/0", "val/1"]),
        ("a{,b}", ["a", "ab"]),
        ("a{b}c", ["a{b}c"]),
        ("a{b", ["a{b"]),
        ("}{", ["}{"]),
    ],
)
def test_braces_expand_as_in_the_shell(pattern: str, expected: list[str]):
    assert expand_braces(pattern) == expected


def test_a_range_of_shards_in_its_order(tmp_path: Path):
    for number in range(12):
        write_tar(tmp_path / f"s-{number:03}.tar", SAMPLES[:1])
    assert names(tmp_path / "s-{000..011}.tar") == [f"s-{n:03}.tar" for n in range(12)]
    assert names(tmp_path / "s-{003..001}.tar") == ["s-003.tar", "s-002.tar", "s-001.tar"]
    assert names(tmp_path / "s-01*.tar") == ["s-010.tar", "s-011.tar"]
    assert names(tmp_path / "s-00[1-2].tar") == ["s-001.tar", "s-002.tar"]


def test_a_range_with_a_gap_is_refused_with_the_first_that_lacks(tmp_path: Path):
    for number in (0, 2):
        write_tar(tmp_path / f"s-{number}.tar", SAMPLES[:1])
    said = refusal(tmp_path / "s-{0..3}.tar")
    assert "2 of 4 do not exist, the first is" in said
    assert "s-1.tar; did you mean" in said


def test_a_gap_on_a_remote_store_is_not_sought_on_the_disk():
    fsspec.filesystem("memory").pipe_file("/gap/s-0.tar", b"")
    said = refusal("memory://gap/s-{0..1}.tar")
    assert "the first is memory://gap/s-1.tar; check the bucket, the prefix and the credentials" in said


def test_braces_may_name_folders(tmp_path: Path):
    for part in ("train", "val", "test"):
        write_folder(tmp_path / part, SAMPLES[:2])
    assert images(tmp_path / "{train,val}") == [f"{p}/{n}" for p in ("train", "val") for n, _ in SAMPLES[:2]]


def test_a_glob_over_folders(tmp_path: Path):
    for part in ("a", "b"):
        write_tar(tmp_path / part / "x.tar", SAMPLES[:1])
    assert names(tmp_path / "*" / "*.tar") == ["a/x.tar", "b/x.tar"]
    assert names(tmp_path / "**" / "*.tar") == ["a/x.tar", "b/x.tar"]


def test_names_with_special_characters(tmp_path: Path):
    odd = [("a b.jpg", SAMPLES[0][1]), ("c#d%20e.jpg", SAMPLES[1][1]), ("é[1].jpg", SAMPLES[2][1])]
    write_folder(tmp_path, odd)
    records = read(open_source([str(tmp_path)]))
    assert [(r.image_id, r.data) for r in records] == odd
    assert images(tmp_path / "é[1].jpg") == ["é[1].jpg"]
    assert images(tmp_path / "c#d%20e.jpg") == ["c#d%20e.jpg"]


def test_a_name_that_is_not_utf8(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(SAMPLES[0][1])
    (record,) = read(open_source([str(tmp_path)]))
    assert record.image_id == "caf\\udce9.jpg"
    assert record.data == SAMPLES[0][1]


def test_a_link_to_a_folder_is_followed_and_a_circle_is_not(tmp_path: Path):
    write_folder(tmp_path / "elsewhere", SAMPLES[:2])
    write_folder(tmp_path / "corpus" / "own", SAMPLES[2:3])
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "corpus")
    assert images(tmp_path / "corpus") == [
        *(f"linked/{name}" for name, _ in SAMPLES[:2]), f"own/{SAMPLES[2][0]}"
    ]  # fmt: skip


def test_a_broken_link_is_a_record_with_an_error(tmp_path: Path):
    write_folder(tmp_path, SAMPLES[:1])
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    records = read(open_source([str(tmp_path)]))
    assert [r.error.type if r.error else None for r in records] == [None, "MissingObject"]


def test_pictures_in_formats_that_cannot_be_decoded_count_as_records(tmp_path: Path):
    write_folder(tmp_path, [*SAMPLES[:1], ("a.HEIC", b"x"), ("b.avif", b"x"), ("c.JFIF", SAMPLES[1][1])])
    assert images(tmp_path) == [SAMPLES[0][0], "a.HEIC", "b.avif", "c.JFIF"]


def test_a_folder_with_a_mix_of_formats_is_refused_until_one_is_meant(tmp_path: Path):
    write_folder(tmp_path, SAMPLES[:2])
    write_tar(tmp_path / "a.tar", SAMPLES[:1])
    said = refusal(tmp_path)
    assert "a mix of formats: " in said
    assert "2 of images" in said
    assert "1 of webdataset (a.tar)" in said
    assert "set the option format" in said
    assert names(tmp_path, format="webdataset") == ["a.tar"]
    assert names(tmp_path / "*.tar") == ["a.tar"]


def test_inputs_of_several_formats(tmp_path: Path):
    write_tar(tmp_path / "t" / "a.tar", SAMPLES[:1])
    write_parquet(tmp_path / "p" / "b.parquet", SAMPLES[:1])
    write_folder(tmp_path / "i", SAMPLES[:1])
    write_manifest(tmp_path / "m" / "c.csv", [f"../i/{SAMPLES[0][0]}"])
    inputs = [tmp_path / "t", tmp_path / "p" / "*.parquet", tmp_path / "i", tmp_path / "m" / "c.csv"]
    shards = list(open_source([str(i) for i in inputs]).shards())
    assert [s.format for s in shards] == ["webdataset", "parquet", "images", "manifest"]
    assert [r.data for r in read(open_source([str(i) for i in inputs]))] == [SAMPLES[0][1]] * 4


def test_a_missing_input_suggests_the_near_name(tmp_path: Path):
    write_tar(tmp_path / "shards" / "train-000.tar", SAMPLES[:1])
    assert f"did you mean {tmp_path}/shards?" in refusal(tmp_path / "shard" / "train-000.tar")
    assert f"did you mean {tmp_path}/shards/train-000.tar?" in refusal(tmp_path / "shards" / "train-00.tar")
    assert "does not exist" in refusal(tmp_path / "shards" / "*.parquet")
    assert f"{tmp_path}/shards holds train-000.tar" in refusal(tmp_path / "shards" / "*.parquet")
    assert "does not exist" in refusal(tmp_path / "shards" / "train-000.tar" / "x")


@pytest.mark.parametrize("again", ["a.tar", "*.tar", "{a,b}.tar", "."])
def test_one_shard_named_by_two_inputs_is_refused(tmp_path: Path, again: str):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", SAMPLES[:1])
    said = refusal(tmp_path / "a.tar", tmp_path / again)
    assert f"{tmp_path}/a.tar: is named by two inputs" in said


def test_a_file_whose_name_tells_no_format(tmp_path: Path):
    path = write_tar(tmp_path / "shard.dat", SAMPLES[:1])
    said = refusal(path)
    assert "its name tells no format; known: .tar, " in said
    assert "set the option format" in said
    assert images_with(path, "webdataset") == [SAMPLES[0][1]]


def images_with(path: Path, format: str) -> list[bytes | None]:
    return [r.data for r in read(open_source([str(path)], format=format))]


def test_an_unknown_format_and_an_unknown_protocol_name_the_known(tmp_path: Path):
    with pytest.raises(SpecError, match="unknown format 'zip'; known: images, manifest, parquet, webdataset"):
        open_source([str(tmp_path)], format="zip")
    assert "s3, gs, az, hf, https and local paths are usual" in refusal("nosuch://bucket/a.tar")


def test_passwords_are_not_shown():
    assert "secret" not in refusal("memory://user:secret@host/none.tar")
