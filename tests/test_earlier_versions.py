"""What earlier versions wrote can be read by this one; what cannot be resumed says why."""

from __future__ import annotations

import json
import os
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from segbatch.cli import app as cli
from segbatch.codecs import mask_png
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.errors import PlanError
from segbatch.models import MODELS
from segbatch.operations.compact import compact
from segbatch.operations.nightly.reports import read_night
from segbatch.operations.verify import verify
from segbatch.output.result_file import read_file
from segbatch.output.writer import to_parquet
from segbatch.planning.plan import make_plan
from segbatch.results.dataset import MaskDataset
from segbatch.stages.scoring import ROWS_VERSION
from segbatch.storage.store import Store
from segbatch.training.trainer import train
from tests import here
from tests.corpus import encode, photograph

FORMAT1 = Path(__file__).parent / "fixtures/format1"
# name -> (rows version, masks, errors, folder of its input)
OUTPUTS = {
    "out": (2, 8, 1, "in"),
    "merged": (2, 8, 1, "in"),
    "img-out": (2, 3, 0, "img-in"),
    "night-out": (2, 6, 0, "night-in"),
    "img-out-3": (3, 3, 0, "img-in"),
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A copy of the fixture, its inputs as old as they were."""
    folder = tmp_path / "corpus"
    shutil.copytree(FORMAT1, folder)
    for name, time in json.loads((folder / "times.json").read_text()).items():
        os.utime(folder / name, ns=(time, time))
    return folder


@pytest.mark.parametrize("name", OUTPUTS)
def test_stats_and_errors_of_an_earlier_output_are_as_they_were(name: str) -> None:
    version, masks, errors, _ = OUTPUTS[name]
    found = MaskDataset.open(str(FORMAT1 / name))
    assert found.record.rows_version == version
    assert found.is_complete
    assert (found.totals.records - found.totals.failed, found.totals.failed) == (masks, errors)
    assert [row.error is not None for row in found.errors()] == [True] * errors
    rows = list(found)
    assert len(rows) == len(found) == masks + errors
    assert [found[row.image_id] for row in rows] == rows
    assert sum(row.mask is not None for row in rows) == masks


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_earlier_output_is_verified(name: str, corpus: Path) -> None:
    _, masks, errors, source = OUTPUTS[name]
    report = verify(str(corpus / name), inputs=[str(corpus / source)])
    assert report.problems == []
    assert (report.masks, report.errors) == (masks, errors)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_earlier_output_is_compacted_and_verified_again(name: str, corpus: Path) -> None:
    _, masks, errors, source = OUTPUTS[name]
    compact(str(corpus / name), target_bytes=2**20)
    report = verify(str(corpus / name), inputs=[str(corpus / source)])
    assert report.problems == []
    assert (report.files, report.masks, report.errors) == (1, masks, errors)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_earlier_output_is_resumed_or_the_refusal_says_why(name: str, corpus: Path) -> None:
    version, _, _, source = OUTPUTS[name]
    spec: dict[str, Any] = json.loads((corpus / name / "run.json").read_text())["spec"]
    given = {**spec, "inputs": [str(corpus / source)], "output": str(corpus / name)}
    with pytest.raises(PlanError, match=f"rows version {version}, this version of segbatch writes {ROWS_VERSION}"):
        make_plan(JobSpec.create(**given))


def test_an_output_of_format_1_0_is_resumed_beside_its_masks_with_256_colors(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}.png").write_bytes(encode(photograph(number, 32), "PNG"))
    spec = here.spec([str(tmp_path / "in")], tmp_path / "out", chunk_size=1)
    here.run(spec)
    first, *others = sorted((tmp_path / "out/masks").iterdir())
    (receipt, rows), *_ = read_file(Store(str(tmp_path / "out")), first.name)
    masks = [mask_png.decode(data) for data in rows["mask"].to_pylist()]
    palette = MaskDataset.open(str(tmp_path / "out")).record.labels.palette()
    earlier = pa.array([mask_png.encode(mask, palette, 256) for mask in masks], pa.binary())
    rows = rows.set_column(rows.schema.get_field_index("mask"), "mask", earlier)
    footer = json.dumps({**json.loads(receipt.footer()), "format_version": "1.0"})
    first.write_bytes(to_parquet(rows, footer.encode()))
    others[0].unlink()
    for name in ("stats/files.parquet", "_SUCCESS"):
        (tmp_path / "out" / name).unlink()
    run_json = tmp_path / "out/run.json"
    run_json.write_text(json.dumps({**json.loads(run_json.read_text()), "format_version": "1.0", "state": "running"}))

    assert here.run(spec).computed == 1
    assert verify(str(tmp_path / "out"), inputs=[str(tmp_path / "in")]).problems == []
    sizes = {len(Image.open(BytesIO(row.png)).getpalette() or []) for row in MaskDataset.open(str(tmp_path / "out"))}
    assert sizes == {3 * 256, 3 * 17}
    assert json.loads(run_json.read_text())["format_version"] == "1.1"


def test_what_an_earlier_version_called_confidence_is_shown_as_the_marginal_that_it_is() -> None:
    result = CliRunner().invoke(cli.app, ["stats", str(FORMAT1 / "img-out-3")])
    assert re.search(r"class +images +pixels +share +marginal", result.output)
    result = CliRunner().invoke(cli.app, ["stats", str(FORMAT1 / "img-out-3"), "--json"])
    person = json.loads(result.output)["classes"][15]
    assert person["marginal"] == pytest.approx(0.946, abs=1e-3)
    assert "confidence" not in person


def test_the_nights_of_an_earlier_version_are_read() -> None:
    state = Store(str(FORMAT1 / "state"))
    nights = [read_night(state, date) for date in ("2026-11-30", "2026-12-01")]
    assert [n.datasets["street"].current["records"] for n in nights if n] == [3, 6]


def test_an_earlier_training_is_resumed_or_the_refusal_says_why(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS.entries, "tiny", "tests.training.tiny:TINY")
    fields = {
        "model": "tiny",
        "ignore": [9],
        "batch_size": 4,
        "epochs": 4,
        "lr": 0.2,
        "crop": (28, 36),
        "scale": (0.8, 1.25),
        "ema": 0.9,
        "validate_every": 1,
        "threads": 1,
        "device": "cpu",
    }
    where = {"inputs": ["train/images"], "val": ["val/images"]}
    for name, folders in where.items():
        fields[name] = [str(corpus / f) for f in folders]
    fields |= {"labels": str(corpus / "train/labels"), "val_labels": str(corpus / "val/labels")}
    with pytest.raises(PlanError, match="inputs"):
        train(TrainSpec.create(**fields, output=str(corpus / "trained")))
