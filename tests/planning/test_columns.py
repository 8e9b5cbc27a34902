"""What a run keeps of the columns that it found by their values, and what its plan says of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import PlanError, SourceError
from segbatch.operations.explain import explain
from segbatch.operations.verify import verify
from segbatch.planning.plan import make_plan
from tests import here
from tests.corpus import photographs, write_tar

JPEGS = [data for _, data in photographs(6, side=64)]
DIGESTS = [hashlib.sha256(data).digest() for data in JPEGS]


def table(path: Path, rows: slice, **columns: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({name: values[rows] for name, values in columns.items()}), path)


def read_options(output: Path) -> dict[str, Any]:
    options: dict[str, Any] = json.loads((output / "run.json").read_text())["identity"]["read"]
    return options


def test_a_column_that_values_told_is_kept_for_later_runs_of_the_output(tmp_path: Path) -> None:
    table(tmp_path / "in/a.parquet", slice(0, 3), id=list("abcdef"), content=DIGESTS, scan=JPEGS)
    spec = here.spec([str(tmp_path / "in")], tmp_path / "out")
    assert "images       column scan: JPEG 64 x 64\nids          column id (string)\n" in explain(spec).to_text()
    assert here.run(spec).totals.records == 3
    assert read_options(tmp_path / "out")["image_column"] == "scan"
    # Of these alone it could not be told.
    table(tmp_path / "in/b.parquet", slice(3, 6), id=list("abcdef"), content=JPEGS, scan=JPEGS)
    with pytest.raises(SourceError, match=r"several columns hold images \(content: .*, scan: JPEG"):
        make_plan(here.spec([str(tmp_path / "in/b.parquet")], tmp_path / "other"))
    assert here.run(spec).totals.records == 6
    assert here.run(here.spec([str(tmp_path / "in")], tmp_path / "out", image_column="scan")).totals.records == 6
    assert verify(str(tmp_path / "out"), read_input=True).problems == []
    with pytest.raises(PlanError, match=r'read.image_column "scan" there, "content" requested'):
        make_plan(here.spec([str(tmp_path / "in")], tmp_path / "out", image_column="content"))


def test_a_column_that_type_and_name_tell_is_not_part_of_a_run(tmp_path: Path) -> None:
    table(tmp_path / "in/a.parquet", slice(0, 3), id=list("abcdef"), sha256=DIGESTS, image=JPEGS)
    assert here.run(here.spec([str(tmp_path / "in")], tmp_path / "out")).totals.records == 3
    options = read_options(tmp_path / "out")
    assert options["image_column"] is None
    assert "image_member" not in options  # outputs of earlier versions are resumed


def test_an_output_whose_column_was_told_by_its_name_is_resumed_by_its_name(tmp_path: Path) -> None:
    """Earlier versions took ``jpg`` of ``jpg`` and ``png`` without a look at the values."""
    both = {"id": list("abcdef"), "jpg": JPEGS}
    table(tmp_path / "in/a.parquet", slice(0, 3), **both)
    spec = here.spec([str(tmp_path / "in")], tmp_path / "out")
    assert here.run(spec).totals.records == 3
    table(tmp_path / "in/b.parquet", slice(3, 6), **both, png=JPEGS)
    with pytest.raises(SourceError, match="jpg: JPEG 43 x 64, png: JPEG 43 x 64"):
        make_plan(here.spec([str(tmp_path / "in")], tmp_path / "other"))
    assert here.run(spec).totals.records == 6
    assert read_options(tmp_path / "out")["image_column"] is None
    assert verify(str(tmp_path / "out"), read_input=True).problems == []


def test_options_without_effect_and_ids_that_are_not_kept_are_warned_of(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", [("a.jpg", JPEGS[0])])
    table(tmp_path / "in/b.parquet", slice(0, 3), id=[[n] for n in range(6)], image=JPEGS)
    tar = make_plan(here.spec([str(tmp_path / "in/a.tar")], tmp_path / "out", image_column="photo", id_column="id"))
    assert [text.split(":")[0] for text in tar.job.warnings()] == [
        "image_column = 'photo' has no effect", "id_column = 'id' has no effect"
    ]  # fmt: skip
    (unkept, member) = make_plan(
        here.spec([str(tmp_path / "in/b.parquet")], tmp_path / "out", image_member="left")
    ).job.warnings()
    assert unkept.startswith("column 'id' is list<")
    assert member == "image_member = 'left' has no effect: no input is webdataset"
