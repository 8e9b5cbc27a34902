"""The contract for every format, and that they agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.errors import SourceError
from tests.corpus import Sample, photographs, write_folder, write_manifest, write_parquet, write_tar
from tests.inputs import open_source
from tests.sources.contract import SourceContract, read


class TestTar(SourceContract):
    name = "a.tar"

    def write(self, folder: Path, samples: list[Sample]) -> str:
        return str(write_tar(folder / self.name, [m for s in samples for m in self.members(s)]))

    def members(self, sample: Sample) -> list[Sample]:
        return [sample]

    def id_of(self, name: str) -> str:
        return f"{self.name}/{name.removesuffix('.jpg')}"


class TestTarGz(TestTar):
    name = "a.tar.gz"


class TestTarBzip2(TestTar):
    name = "a.tbz2"


class TestTarXz(TestTar):
    name = "a.tar.xz"


class TestTarZstd(TestTar):
    name = "a.tar.zst"


class TestTarWithNotes(TestTar):
    """Members beside the images, some of which look like images too."""

    def members(self, sample: Sample) -> list[Sample]:
        key = sample[0].removesuffix(".jpg")
        return [(f"{key}.cls", b"3"), (f"{key}.seg.png", b"a label map"), sample, (f"{key}.json", b"{}")]


class TestParquet(SourceContract):
    def write(self, folder: Path, samples: list[Sample]) -> str:
        return str(write_parquet(folder / "a.parquet", samples, rows_per_group=5))

    def id_of(self, name: str) -> str:
        return f"a.parquet/{name}"


class TestHuggingFaceParquet(TestParquet):
    def write(self, folder: Path, samples: list[Sample]) -> str:
        return str(write_parquet(folder / "a.parquet", samples, hugging_face=True, rows_per_group=4))


class TestFolder(SourceContract):
    def write(self, folder: Path, samples: list[Sample]) -> str:
        return str(write_folder(folder, samples))

    def id_of(self, name: str) -> str:
        return name

    def test_a_shard_without_records_is_one_empty_chunk(self, tmp_path: Path):
        with pytest.raises(SourceError, match=r"holds no shard and no image: it is empty"):
            list(open_source([self.write(tmp_path, [])]).shards())


class TestCsv(SourceContract):
    name = "list.csv"

    def write(self, folder: Path, samples: list[Sample]) -> str:
        write_folder(folder / "images", samples)
        return str(write_manifest(folder / self.name, [f"images/{name}" for name, _ in samples]))

    def id_of(self, name: str) -> str:
        return f"{self.name}/images/{name}"


class TestTsv(TestCsv):
    name = "list.tsv"


class TestJsonl(TestCsv):
    name = "list.jsonl"


class TestCsvGz(TestCsv):
    name = "list.csv.gz"


class TestJsonlGz(TestCsv):
    name = "list.jsonl.gz"


class TestParquetManifest(TestCsv):
    name = "list.parquet"


def test_formats_give_equal_bytes(tmp_path: Path):
    samples = photographs(7, "WEBP", side=48)
    write_folder(tmp_path / "folder", samples)
    inputs = [
        write_tar(tmp_path / "a.tar", samples),
        write_tar(tmp_path / "a.tgz", samples),
        write_parquet(tmp_path / "a.parquet", samples),
        write_parquet(tmp_path / "b.parquet", samples, hugging_face=True),
        tmp_path / "folder",
        write_manifest(tmp_path / "a.csv", [f"folder/{name}" for name, _ in samples]),
        write_manifest(tmp_path / "a.jsonl", [str(tmp_path / "folder" / name) for name, _ in samples]),
    ]
    expected = [data for _, data in samples]
    for given in inputs:
        assert [r.data for r in read(open_source([str(given)]), 3)] == expected, given.name
    together = open_source([str(p) for p in inputs])
    records = read(together, 3)
    assert [r.data for r in records] == expected * len(inputs)
    assert len({r.image_id for r in records}) == len(records)


def test_ids_do_not_depend_on_the_machine(tmp_path: Path):
    def ids(root: Path) -> list[str]:
        write_tar(root / "x" / "a.tar", photographs(2, side=32))
        write_folder(root / "y", photographs(2, side=32))
        return [r.image_id for r in read(open_source([str(root / "x"), str(root / "y")]))]

    assert ids(tmp_path / "here") == ids(tmp_path / "there" / "deeper")
    assert ids(tmp_path / "here")[:1] == ["x/a.tar/0000-astronaut"]


def test_changed_content_is_another_shard_of_the_same_key(tmp_path: Path):
    path = tmp_path / "a.tar"
    before, after = (next(iter(open_source([str(write_tar(path, photographs(n, side=32)))]).shards())) for n in (1, 2))
    assert before.key == after.key
    assert before.id != after.id
