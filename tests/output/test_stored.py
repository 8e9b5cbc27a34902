"""What is stored has a format version: keys of a later minor version are ignored, a newer major one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.operations.nightly.reports import read_night
from segbatch.output.catalog import read_catalog
from segbatch.output.file_table import FileTable
from segbatch.output.promotion import complete_promotion
from segbatch.output.receipt import Receipt
from segbatch.output.run_record import RunRecord
from segbatch.output.stored import NewerFormat
from segbatch.output.totals import Totals
from segbatch.results.dataset import MaskDataset
from segbatch.storage.store import Store

FORMAT1 = Path(__file__).parents[1] / "fixtures/format1"
RUN_JSON = json.loads((FORMAT1 / "img-out-3/run.json").read_text())
CLAIM = RunRecord.parse(RUN_JSON, "run.json").claim


def json_file(name: str, content: dict[str, object]) -> Callable[[Path, str], None]:
    def write(folder: Path, version: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({**content, "format_version": version, "added_later": 1}))

    return write


def table(name: str) -> Callable[[Path, str], None]:
    def write(folder: Path, version: str) -> None:
        found = pq.read_table(FORMAT1 / name)
        metadata = {**(found.schema.metadata or {}), b"format_version": version.encode()}
        found = found.append_column("added_later", pa.array([1] * found.num_rows))
        (folder / name.partition("/")[2]).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(found.replace_schema_metadata(metadata), folder / name.partition("/")[2])

    return write


FOOTER = json.loads(Receipt("x", "f", Totals(3), 0, {}).footer())
STORED = {
    "run.json": (json_file("run.json", RUN_JSON), lambda folder: MaskDataset.open(str(folder))),
    "switch.json": (
        json_file("switch.json", {"folder": "retired/2026-11-30", "arrive": []}),
        lambda folder: complete_promotion(Store(str(folder))),
    ),
    "night.json": (
        json_file(
            "nights/2026-11-30/night.json", json.loads((FORMAT1 / "state/nights/2026-11-30/night.json").read_text())
        ),
        lambda folder: read_night(Store(str(folder)), "2026-11-30"),
    ),
    "footer": (json_file("footer", FOOTER), lambda folder: Receipt.from_footer((folder / "footer").read_bytes(), 0)),
    "files.parquet": (table("img-out-3/stats/files.parquet"), lambda folder: FileTable.read(Store(str(folder)), CLAIM)),
    "shards.parquet": (table("night-out/shards.parquet"), lambda folder: read_catalog(Store(str(folder)))),
}


@pytest.mark.parametrize("name", STORED)
def test_keys_that_a_later_minor_version_adds_are_ignored(name: str, tmp_path: Path) -> None:
    write, read = STORED[name]
    json_file("run.json", RUN_JSON)(tmp_path, "1.0")
    write(tmp_path, "1.7")
    assert read(tmp_path) is not None


@pytest.mark.parametrize("name", STORED)
def test_a_newer_major_version_is_refused_with_its_remedy(name: str, tmp_path: Path) -> None:
    write, read = STORED[name]
    write(tmp_path, "2.0")
    with pytest.raises(NewerFormat, match=r"written by segbatch .* in format 2\.0, .*; upgrade segbatch"):
        read(tmp_path)


def test_the_refusal_names_the_version_that_wrote_the_output(tmp_path: Path) -> None:
    later = {**RUN_JSON, "versions": {"segbatch": "9.1"}}
    json_file("run.json", later)(tmp_path, "3.0")
    with pytest.raises(NewerFormat, match=r"run\.json: written by segbatch 9\.1 in format 3\.0"):
        MaskDataset.open(str(tmp_path))
