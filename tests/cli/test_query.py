"""The command query: tables for people, JSON, CSV and files."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import segbatch
from segbatch.operations.query import query
from segbatch.output.output import Output
from tests import here
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder

HOSTILE = "\x1b[31mred[bold].jpg"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query")
    (_, data), *images = photographs(8, side=40)
    here.run(here.spec([str(write_folder(folder / "in", [(HOSTILE, data), *images]))], folder / "out"))
    return folder / "out"


def test_the_table_is_cut_and_escaped(output: Path, command: Command) -> None:
    sql = "SELECT image_id, mask, classes, confidence FROM masks ORDER BY image_id"
    code, text, _ = command("query", output, sql, "--limit", 8)
    lines = text.splitlines()
    assert (code, lines[-1]) == (0, "(8 rows)")
    assert all(len(line) <= 80 for line in lines)
    assert "\x1b" not in text
    assert "\\x1b[31mred[bold]" in text
    assert " bytes" in lines[1]
    assert "(the first 2 rows; --limit N shows more" in command("query", output, sql, "--limit", 2)[1]


def test_rows_as_json_csv_and_files(output: Path, command: Command, tmp_path: Path) -> None:
    sql = """SELECT image_id, m.confidence, mask, sum(pixels) AS pixels
             FROM masks m JOIN classes USING (image_id) GROUP BY ALL"""
    wanted = {row["image_id"]: row for row in query(str(output), sql).to_pylist()}
    shown = json.loads(command("query", output, sql, "--json")[1])
    assert {row["image_id"]: row["pixels"] for row in shown} == {k: int(v["pixels"]) for k, v in wanted.items()}
    text = command("query", output, sql, "--csv")[1]
    assert {row["image_id"] for row in csv.DictReader(io.StringIO(text))} == set(wanted)
    assert json.loads(command("query", output, f"{sql} LIMIT 0", "--json")[1]) == []
    for name in ("rows.parquet", "rows.csv"):
        code, text, _ = command("query", output, sql, "--to", tmp_path / name)
        assert (code, text) == (0, f"8 rows: {tmp_path / name}\n")
        assert command("query", output, sql, "--to", tmp_path / name)[0] == 2
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 8
    assert len(list(csv.reader((tmp_path / "rows.csv").read_text().splitlines()))) == 9
    twice = "SELECT confidence, confidence FROM masks"
    assert "several columns are called 'confidence'; name each with AS" in command("query", output, twice, "--json")[2]
    assert command("query", output, twice)[0] == 0
    code, _, log = command("query", output, sql, "--to", tmp_path / "rows.txt")
    assert (code, "must end in .parquet or .csv" in log) == (2, True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["rows.csv", "rows.parquet"]


def test_without_duckdb_the_extra_is_named(
    output: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "segbatch.operations.query")
    code, _, log = command("query", output, "FROM masks")
    assert (code, "pip install 'segbatch[query]'" in log) == (2, True)
    with pytest.raises(ImportError, match=r"pip install 'segbatch\[query\]'"):
        print(segbatch.query)


def test_an_unfinished_output_is_named(output: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    Output.open(str(tmp_path / "out")).update(state="running")
    code, _, log = command("query", tmp_path / "out", "SELECT count(*) FROM masks")
    assert (code, "the run is not finished: these are the committed chunks" in log) == (0, True)


def test_a_reader_may_leave(output: Path) -> None:
    call = [sys.executable, "-m", "segbatch", "query", str(output), "FROM masks", "--csv"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        log = process.stderr.read()
        assert (process.wait(), "error" in log) == (0, False), log
