"""The command select: the list, its files, and the export of the chosen images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from segbatch.operations.row_files import read_ids
from segbatch.operations.select import select
from tests import here
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("select")
    here.run(here.spec([str(write_folder(folder / "in", photographs(18, side=40)))], folder / "out"))
    return folder / "out"


def test_the_list_is_a_table_or_a_file(output: Path, tmp_path: Path, command: Command) -> None:
    code, text, _ = command("select", output, "-n", 3)
    assert code == 0
    assert text.splitlines()[-2:] == ["3 images of 18", "the list is written by --to FILE.csv or --to FILE.parquet"]
    assert all(len(line) <= 80 for line in text.splitlines())
    for name in ("list.csv", "list.parquet"):
        code, text, _ = command("select", output, "-n", 3, "--to", tmp_path / name)
        assert (code, text.splitlines()[-1]) == (0, f"3 images of 18: {tmp_path / name}")
        assert read_ids(tmp_path / name) == select(str(output), n=3).image_ids
    assert pq.read_schema(tmp_path / "list.parquet").names == [
        "rank",
        "image_id",
        "source",
        "strategy",
        "score",
        "reason",
    ]
    code, text, _ = command("select", output, "--exclude", tmp_path / "list.csv", "-n", 15, "--json")
    assert (code, text.count("image_id")) == (0, 15)
    (tmp_path / "ids.csv").write_text("name\na\n")
    assert "no column image_id" in command("select", output, "--exclude", tmp_path / "ids.csv")[2]
    (tmp_path / "ids.txt").write_text("\n".join(read_ids(tmp_path / "list.csv")) + "\n")
    assert read_ids(tmp_path / "ids.txt") == read_ids(tmp_path / "list.csv")
    assert np.isfinite(pq.read_table(tmp_path / "list.parquet")["score"].to_numpy()).all()


def test_the_chosen_images_alone_are_exported(output: Path, tmp_path: Path, command: Command) -> None:
    given = ["select", output, "-n", 3, "--export"]
    code, text, log = command(*given, "png", tmp_path / "png")
    assert (code, "3 images, 3 classes" in text) == (0, True), log
    assert len(list((tmp_path / "png").rglob("*.png"))) == 3
    names = pq.read_table(tmp_path / "png/names.parquet")["image_id"].to_pylist()
    assert set(names) == set(select(str(output), n=3).image_ids)
    code, _, log = command(*given, "pgn", tmp_path / "other")
    assert (code, "did you mean 'png'" in log, (tmp_path / "other").exists()) == (2, True, False)
