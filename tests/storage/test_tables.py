"""Folders of which a log says which Parquet files count are refused: removed rows never come back."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from segbatch.errors import SourceError
from tests.corpus import photographs, write_folder, write_parquet
from tests.inputs import open_source

SAMPLES = photographs(1, side=32)
MARKERS = {
    "_delta_log/00000000000000000000.json": "a Delta table",
    "_delta_log/_last_checkpoint": "a Delta table",
    ".hoodie/hoodie.properties": "a Hudi table",
    "metadata/v1.metadata.json": "an Iceberg table",
    "metadata/00001-0f6e.gz.metadata.json": "an Iceberg table",
    "_spark_metadata/0": "a sink of Spark streaming",
}


def write_table(folder: Path, marker: str) -> Path:
    """A table of one current and one removed file, one of them in a partition."""
    write_parquet(folder / "data/day=1/old.parquet", SAMPLES)
    write_parquet(folder / "data/new.parquet", SAMPLES)
    write_folder(folder, [(marker, b"{}")])
    return folder


def refusal(*inputs: Path | str) -> str:
    with pytest.raises(SourceError) as caught:
        open_source([str(i) for i in inputs]).corpus()
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize(
    "given",
    ["lake/t", "lake", ".", "lake/t/", "lake/t/data", "lake/t/data/day=1", "lake/t/data/*.parquet", "lake/**/*.parquet",
     "lake/*/data/*/*", "lake/t/data/{new,day=1/old}.parquet", "*/t/data/new*"],
)  # fmt: skip
def test_a_table_is_refused_with_its_marker(tmp_path: Path, marker: str, given: str):
    write_table(tmp_path / "lake/t", marker)
    said = refusal(tmp_path / given)
    kind = MARKERS[marker]
    assert f"{tmp_path}/lake/t: is {kind}" in said
    assert marker.split("/")[0] in said
    assert "export its current version" in said


@pytest.mark.parametrize("given", ["t", "t/data", "t/data/*.parquet", "**/*.parquet", "t/data/{new,day=1/old}.parquet"])
def test_a_table_in_a_store_is_refused(tmp_path: Path, given: str):
    fs = fsspec.filesystem("memory")
    for marker in ("_delta_log/0.json", ".hoodie/x", "metadata/v1.metadata.json"):
        place = f"/lake-{marker[1:4]}"
        for path in write_table(tmp_path / place[1:] / "t", marker).rglob("*"):
            if path.is_file():
                fs.pipe_file(f"/{path.relative_to(tmp_path)}", path.read_bytes())
        assert f"memory:/{place}/t: is a" in refusal(f"memory:/{place}/{given}")


def test_the_current_files_may_be_named_one_by_one(tmp_path: Path):
    write_table(tmp_path, "_delta_log/0.json")
    write_parquet(tmp_path / "data/newer.parquet", SAMPLES)
    given = [str(tmp_path / "data" / name) for name in ("new.parquet", "newer.parquet")]
    assert [s.name for s in open_source(given).shards()] == ["new.parquet", "newer.parquet"]


def test_other_folders_beside_a_table_and_images_with_such_notes_are_read(tmp_path: Path):
    write_table(tmp_path / "t", "_delta_log/0.json")
    write_parquet(tmp_path / "u/a.parquet", SAMPLES)
    write_folder(tmp_path / "photos", [*SAMPLES, ("metadata/a.metadata.json", b"{}")])
    assert [s.name for s in open_source([str(tmp_path / "u")]).shards()] == ["a.parquet"]
    assert sum(s.records or 0 for s in open_source([str(tmp_path / "photos")]).shards()) == 1


def test_a_folder_called_metadata_above_the_files_makes_no_table(tmp_path: Path):
    write_folder(tmp_path, [("metadata/x.metadata.json", b"{}")])
    write_parquet(tmp_path / "shards/a.parquet", SAMPLES)
    assert [s.name for s in open_source([str(tmp_path / "shards")]).shards()] == ["a.parquet"]
