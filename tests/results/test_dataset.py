"""An output read as a dataset, also from a store that asks for a key and drops every third request."""

from __future__ import annotations

import itertools
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segbatch.cli import app as cli
from segbatch.operations.compact import compact
from segbatch.output.compaction import merge
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import RunRecord
from segbatch.results.dataset import MaskDataset
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_folder


class Shy(MemoryFileSystem):
    """Opens for a key alone, and is not always in the mood."""

    protocol = "shy"
    cachable = False
    asked = itertools.count()

    def __init__(self, key: str = "", **options: Any) -> None:
        if key != "sesame":
            raise ValueError("the key is wrong")
        super().__init__(**options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("shy://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if next(self.asked) % 3 == 0:
            raise ConnectionResetError("connection reset by peer")
        return super().cat_file(path, start, end, **kwargs)


def test_storage_options_and_patience_reach_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("shy", Shy, clobber=True)
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)  # the waits between attempts
    folder = write_folder(tmp_path / "in", [*photographs(3, side=40), ("page.jpg", b"<html>gone</html>")])
    output, config = f"shy://{tmp_path.name}/out", tmp_path / "job.yaml"
    here.run(here.spec([str(folder)], output, storage_options={"key": "sesame"}))
    config.write_text("storage_options: {key: sesame}\n")

    def segbatch(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["segbatch", *args])
        with pytest.raises(SystemExit) as end:
            cli.run_command()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    code, text = segbatch("stats", output, "--json", "--config", str(config))
    assert (code, json.loads(text)["records"]) == (0, 4)
    code, text = segbatch("errors", output, "--config", str(config))
    assert (code, "page.jpg  decode/UnknownFormat" in text) == (0, True)
    code, text = segbatch("verify", output, "--config", str(config))
    assert code == 0, text
    for command in ("stats", "errors", "verify"):
        code, text = segbatch(command, output)
        assert (code, "the key is wrong" in text) == (2, True)


def test_a_dataset_gives_each_row_in_order_by_id_and_as_arrow(tmp_path: Path) -> None:
    images = photographs(6, side=40)
    folder = write_folder(tmp_path / "in", [*images, ("page.jpg", b"<html>gone</html>")])
    here.run(here.spec([str(folder)], tmp_path / "out"))
    dataset = pickle.loads(pickle.dumps(MaskDataset.open(str(tmp_path / "out"))))
    rows = list(dataset)
    assert (len(dataset), dataset.is_complete) == (7, True)
    assert {row.image_id for row in rows} == {name for name, _ in images} | {"page.jpg"}
    assert [dataset[row.image_id] for row in rows] == rows
    (failed,) = dataset.errors()
    assert failed == next(row for row in rows if row.error is not None)
    assert failed.error is not None
    assert (failed.image_id, failed.error.type, failed.mask) == ("page.jpg", "UnknownFormat", None)
    for row in rows:
        if row.mask is not None:
            assert row.mask.shape == (row.height, row.width)
            assert {c.class_id: c.pixels for c in row.classes} == dict(
                zip(*np.unique(row.mask, return_counts=True), strict=True)
            )
    assert dataset.to_arrow(["image_id", "error"]).read_all().num_rows == 7
    assert "page.jpg" in dataset
    with pytest.raises(KeyError, match=r"gone\.jpg"):
        dataset["gone.jpg"]


def test_rows_of_a_merged_file_of_which_only_some_count_are_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", photographs(9, side=40))
    spec = here.spec([str(folder)], tmp_path / "out", chunk_size=2)
    here.run(spec)
    before = {row.image_id: row for row in MaskDataset.open(spec.output)}
    compact(spec.output, target_bytes=2**20)
    store = Store(spec.output)
    ledger = Ledger.read(store)
    left = frozenset(list(ledger.filenames())[1::2])
    merge(store, ledger, [ledger.files()[0].name], RunRecord.need(store).claim, without=left)
    assert len(Ledger.read(store).partial) == 1
    dataset = MaskDataset.open(spec.output)
    assert {row.image_id: row for row in dataset} == before
    assert {name: dataset[name] for name in before} == before
