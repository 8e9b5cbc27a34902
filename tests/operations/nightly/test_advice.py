"""What a summary says about an alert: the kinds of errors, where they are, and commands that can be pasted."""

from __future__ import annotations

import datetime
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from segbatch.cli import app as cli
from segbatch.config.nightly import NightlySpec
from segbatch.errors import COLLAPSED_KEYS
from segbatch.operations.nightly.advice import Advice
from segbatch.operations.nightly.judge import judge_errors
from segbatch.operations.nightly.record import DRIFT, DatasetReport, NightReport
from segbatch.operations.nightly.summary import to_markdown
from segbatch.output.totals import Totals
from tests import here
from tests.corpus import photographs, write_folder, write_tar

DATE = datetime.date(2026, 11, 20)


def reported(spec: NightlySpec, name: str, config: Path) -> tuple[DatasetReport, str]:
    """The entry of a dataset that is computed here, and the summary."""
    job = spec.job_of(name, DATE)
    result = here.run(job)
    totals = result.totals
    current = {"records": totals.records, "errors": totals.failed, "failed_shards": totals.failed_shards}
    entry = DatasetReport(
        output=job.output,
        state="done",
        classes=list(result.labels.names),
        current=current,
        errors=totals.errors,
        totals=totals.sparse(),
    )
    judge_errors(entry, job.max_error_fraction, 1)
    Advice(spec, str(config)).add(entry, name, job, str(DATE))
    return entry, to_markdown(NightReport(date=str(DATE), started="", datasets={name: entry}))


def config_of(folder: Path, **more: Any) -> Path:
    """A configuration whose paths a shell would split."""
    job = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 4}
    street = {"inputs": str(folder / "in"), "output": str(folder / "it's out" / "{date}"), **more}
    street["inputs"] += "/{date}"
    path = folder / "my nights.yaml"
    path.write_text(json.dumps({"state": str(folder / "state"), "job": job, "datasets": {"street": street}}))
    return path


@pytest.mark.parametrize("options", [{}, {"storage_options": {"auto_mkdir": True}}])
def test_errors_are_named_by_kind_with_a_command_that_can_be_pasted(tmp_path: Path, options: dict[str, Any]) -> None:
    damaged = [("page.jpg", b"<html>gone</html>"), ("cut.png", photographs(1, side=32)[0][1][:60])]
    write_folder(tmp_path / "in" / str(DATE), [*photographs(3, side=32), *damaged])
    config = config_of(tmp_path, **options)
    entry, text = reported(NightlySpec.load(config), "street", config)
    assert entry.exit_code == 3
    assert set(entry.errors.values()) == {1}
    for kind in entry.errors:
        assert f"{kind} 1" in text
    assert entry.examples[0].split(":")[0] in ("page.jpg", "cut.png")
    (command,) = re.findall("^- next: list the errors: `(.*)`$", text, re.M)
    program, *words = shlex.split(command)
    assert (program, ("--storage-options" in words)) == ("segbatch", bool(options))
    shown = CliRunner().invoke(cli.app, words)
    assert shown.exit_code == 0, shown.output
    for kind in entry.errors:
        assert kind in shown.output


def test_a_failed_shard_says_why(tmp_path: Path) -> None:
    samples, folder, config = photographs(4, side=32), tmp_path / "in" / str(DATE), config_of(tmp_path)
    write_tar(folder / "good.tar", samples)
    here.run(NightlySpec.load(config).job_of("street", DATE))  # later runs do not look into shards before the work
    write_tar(folder / "a.tar", [(f"a.{i}.jpg", data) for i, (_, data) in enumerate(samples)])
    entry, text = reported(NightlySpec.load(config), "street", config)
    assert (entry.exit_code, entry.current["failed_shards"]) == (3, 1)
    assert COLLAPSED_KEYS in text
    assert "--key last-dot" in entry.examples[0]


@pytest.mark.parametrize(("code", "step"), [(1, "run it again now"), (2, "when that is corrected")])
def test_a_failed_dataset_names_the_command_that_runs_it_again(tmp_path: Path, code: int, step: str) -> None:
    config = config_of(tmp_path)
    spec, entry = NightlySpec.load(config), DatasetReport(output="out", state="failed", exit_code=code)
    Advice(spec, str(config)).add(entry, "street", spec.job_of("street", DATE), str(DATE))
    (found,) = entry.next_steps
    assert found.purpose.startswith(step)
    assert shlex.split(found.command) == [
        "segbatch",
        "nightly",
        str(config),
        "--dataset",
        "street",
        "--date",
        str(DATE),
    ]


def test_a_growing_dataset_is_run_again_at_any_hour() -> None:
    datasets = {"street": {"inputs": "in", "output": "out"}}
    spec = NightlySpec.create(state="s", datasets=datasets, since="22:00", until="06:00")
    entry = DatasetReport(output="out", state="failed", exit_code=1)
    Advice(spec, "s3://b/n.yaml").add(entry, "street", spec.job_of("street", DATE), str(DATE))
    assert entry.next_steps[0].command == "segbatch nightly s3://b/n.yaml --dataset street --until none"


def test_drift_names_what_ends_the_alert() -> None:
    spec = NightlySpec.create(state="s", datasets={"street": {"inputs": "in", "output": "/out"}})
    entry = DatasetReport(output="/out", exit_code=DRIFT)
    Advice(spec, "n.yaml").add(entry, "street", spec.job_of("street", DATE), str(DATE))
    text = to_markdown(NightReport(date=str(DATE), started="", datasets={"street": entry}))
    assert "- next: look at the classes: `segbatch stats /out`" in text
    assert "set drift.reference_from: 2026-11-20 in the configuration" in text


def test_the_kinds_are_those_of_this_night_and_of_the_whole_output() -> None:
    tonight = Totals(1, records=9, errors={"read/MissingObject": 2}).sparse()
    whole = {"read/MissingObject": 3, "decode/`kind`": 4000}
    entry = DatasetReport(output="/out", totals=tonight, errors=whole, examples=["a.jpg: gone"])
    text = to_markdown(NightReport(date=str(DATE), started="", datasets={"street": entry}))
    assert "- errors of this night: read/MissingObject 2\n" in text
    assert "- errors of the whole output: decode/\\`kind\\` 4,000, read/MissingObject 3\n" in text


@pytest.mark.parametrize(
    ("output", "option"),
    [("/b/out/2026-11-20", "of-a"), ("/b/out", "of-b"), ("/b/out/", "of-b"), ("/elsewhere", "of-all")],
)
def test_a_configuration_of_nights_tells_how_its_outputs_are_accessed(output: str, option: str) -> None:
    datasets = {
        "a": {"inputs": "/b/{date}", "output": "/b/out/{date}", "storage_options": {"key": "of-a"}},
        "b": {"inputs": "/c", "output": "/b/out", "storage_options": {"key": "of-b"}},
    }
    spec = NightlySpec.create(state="s", datasets=datasets, storage_options={"key": "of-all"})
    assert spec.storage_options_of(output) == {"key": option}
