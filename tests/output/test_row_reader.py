"""Single rows of result files, each read with its row group."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import OutputError
from segbatch.output.result_file import ResultFile
from segbatch.output.row_reader import RowReader
from segbatch.storage.store import Store


def write(folder: Path, ids: list[str], rows_per_group: int = 10) -> ResultFile:
    (folder / "masks").mkdir(exist_ok=True)
    table = pa.table({"image_id": ids, "index": list(range(len(ids)))})
    pq.write_table(table, folder / "masks/a.parquet", row_group_size=rows_per_group)
    return ResultFile("a.parquet")


def test_rows_are_in_the_order_asked_for_across_row_groups(tmp_path: Path) -> None:
    ids = [f"{i:03}" for i in range(95)]
    file, reader = write(tmp_path, ids), RowReader(Store(str(tmp_path)))
    order = [94, 0, 35, 3, 35, 50]
    assert reader.read(file, order)["image_id"].to_pylist() == [ids[i] for i in order]
    assert reader.row_group_sizes(file) == [10] * 9 + [5]
    assert pickle.loads(pickle.dumps(reader)).read(file, [7], ["index"]).to_pylist() == [{"index": 7}]


def test_positions_count_the_rows_that_are_not_superseded(tmp_path: Path) -> None:
    ids = [f"{i:03}" for i in range(95)]
    write(tmp_path, ids)
    file = ResultFile("a.parquet", ((5, 12), (40, 41), (90, 95)))
    current = [*ids[5:12], *ids[40:41], *ids[90:95]]
    rows = RowReader(Store(str(tmp_path))).read(file, np.arange(len(current)))
    assert rows["image_id"].to_pylist() == current


def test_a_file_that_was_written_again_is_read_as_it_is_now(tmp_path: Path) -> None:
    reader = RowReader(Store(str(tmp_path)))
    assert reader.read(write(tmp_path, ["a", "b", "c"]), [1])["image_id"].to_pylist() == ["b"]
    longer = [f"{i}" * 50 for i in range(30)]
    assert reader.read(write(tmp_path, longer, 4), [17])["image_id"].to_pylist() == [longer[17]]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    file, reader = write(tmp_path, ["a"]), RowReader(Store(str(tmp_path)))
    reader.read(file, [0])
    (tmp_path / "masks/a.parquet").unlink()
    with pytest.raises(OutputError, match=r"masks/a\.parquet: is gone since the output was listed"):
        reader.read(file, [0])


def test_rows_are_read_again_after_the_footers_of_their_files_were_dropped(tmp_path: Path) -> None:
    ids = [f"{i:04}" for i in range(3000)]
    write(tmp_path, ids, rows_per_group=1)
    names = [f"{i}.parquet" for i in range(4)]
    for name in names:
        (tmp_path / "masks" / name).write_bytes((tmp_path / "masks/a.parquet").read_bytes())
    reader = RowReader(Store(str(tmp_path)))
    for name in names * 2:
        assert reader.read(ResultFile(name), [2999, 5])["image_id"].to_pylist() == ["2999", "0005"]
