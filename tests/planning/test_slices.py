"""How a plan divides shards into read tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.operations.verify import verify
from segbatch.planning.plan import MANY_RECORDS, Plan, make_plan
from segbatch.records import ChunkSelection
from tests import here
from tests.corpus import photographs, write_tar
from tests.reporters import Said

JPEG = photographs(1, side=32)[0][1] + bytes(100_000)


def table(path: Path, ids: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"id": ids, "image": [JPEG] * len(ids)}),
        path,
        row_group_size=6,
        compression="none",
        use_dictionary=False,
    )


def planned(folder: Path, chunk_size: int) -> Plan:
    return make_plan(here.spec([str(folder / "in")], folder / "out", chunk_size=chunk_size))


def test_a_shard_is_read_in_slices_of_at_most_8_chunks_and_a_tar_in_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("uri\n" + "a.jpg\n" * 18)
    plan = planned(tmp_path, 1)
    assert [part.wanted for part in plan.slices()] == [ChunkSelection(n, min(n + 8, 18)) for n in (0, 8, 16)]
    write_tar(tmp_path / "tar/in/a.tar", photographs(10, side=32))
    assert [part.wanted for part in planned(tmp_path / "tar", 1).slices()] == [ChunkSelection()]


def test_a_parquet_file_is_read_from_row_groups_on(tmp_path: Path) -> None:
    table(tmp_path / "in/a.parquet", [f"{n}" for n in range(18)])
    assert [part.wanted for part in planned(tmp_path, 1).slices()] == [ChunkSelection(0, 12), ChunkSelection(12, 18)]


def test_ids_do_not_depend_on_the_slices_of_a_file(tmp_path: Path) -> None:
    table(tmp_path / "in/a.parquet", ["same"] * 20)
    assert len(list(planned(tmp_path, 1).slices())) == 2
    here.run(here.spec([str(tmp_path / "in")], tmp_path / "out", chunk_size=1))
    assert verify(str(tmp_path / "out"), read_input=True).problems == []


def test_reading_very_many_ids_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("uri\na.jpg\n")
    plan = planned(tmp_path, 256)
    said: list[str] = []
    for records in (MANY_RECORDS - 1, 2 * MANY_RECORDS):
        shards = [replace(shard, records=records) for shard in plan.job.shards]
        next(replace(plan, job=replace(plan.job, shards=shards)).slices(Said(said)))
    assert said == ["reading the ids of 2,000,000 records in 1 file"]
