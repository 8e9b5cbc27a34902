"""The command line as a person meets it: help, plans, errors and exit codes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from unittest.mock import ANY

import pytest
import typer

from segbatch.cli import app as cli
from segbatch.config.crf_mapping import CRF_FIELDS
from segbatch.config.job import JobSpec
from segbatch.models import describe
from tests.cluster.jobs import tars
from tests.corpus import photographs, write_folder

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def segbatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line in this process; (exit code, all it printed)."""
    monkeypatch.setattr(cli.console, "width", 200)

    def call(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["segbatch", *args])
        code = 0
        try:
            cli.run_command()
        except SystemExit as e:
            code = int(e.code or 0)
        captured = capsys.readouterr()
        return code, re.sub(r"\x1b\[[0-9;]*m", "", captured.out + captured.err)

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures", photographs(3, side=48))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_is_in_the_readme(segbatch: Run, command: str) -> None:
    code, text = segbatch(command, "--help")
    assert code == 0
    assert f"segbatch {command}" in text
    function = next(c.callback for c in cli.app.registered_commands if (c.name or c.callback.__name__) == command)  # type: ignore[union-attr]
    assert len((function.__doc__ or "").strip()) > 30  # type: ignore[union-attr]
    assert re.search(rf"segbatch {command}\b", (ROOT / "README.md").read_text())


def test_the_version_comes_first_and_names_what_a_report_needs(segbatch: Run) -> None:
    code, text = segbatch("--version")
    assert code == 0
    assert text.splitlines()[0] == f"segbatch {version('segbatch')}"
    assert f"Ray {version('ray')}, torch {version('torch')}, Python 3." in text


def test_every_field_of_a_spec_is_a_flag() -> None:
    group = typer.main.get_command(cli.app)
    flags = {name for p in group.commands["run"].params for name in p.opts}  # type: ignore[attr-defined]
    for field in JobSpec.model_fields:
        if field not in ("inputs", "storage_options", "crf"):
            assert "--" + field.replace("_", "-") in flags
    assert {f"--crf-{name.replace('_', '-')}" for name in CRF_FIELDS} <= flags


def test_a_plan_is_printed_and_nothing_written(segbatch: Run, pictures: Path, tmp_path: Path) -> None:
    code, text = segbatch("run", str(pictures), "-o", str(tmp_path / "out"), "--num-cpus", "2", "--dry-run")
    assert code == 0
    assert re.search(r"^input +1 shard \(images\), .*3 records", text, re.MULTILINE)
    assert re.search(r"^chunks +1 of at most 4 records", text, re.MULTILINE)
    assert re.search(r"^committed +nothing", text, re.MULTILINE)
    assert re.search(r"^model +deeplabv3plus_mobilenet_v2, weights voc", text, re.MULTILINE)
    assert re.search(r"^classes +background, aeroplane", text, re.MULTILINE)
    assert re.search(r"^refiner +densecrf: w_bilateral [\d.]+, theta_alpha [\d.]+", text, re.MULTILINE)
    assert re.search(r"^crf from +weights voc \(", text, re.MULTILINE)
    assert re.search(r"^workers +\d+ segment", text, re.MULTILINE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--chunk-size", "0"], r"chunk_size: got 0; input should be greater than 0"),
        (["--refiner", "densecfr"], r"unknown refiner 'densecfr'.*densecrf"),
        (["--model", "deeplabv3_resnet5"], r"deeplabv3_resnet50"),
        (["--model", "no.such:thing"], r"cannot import 'no.such'"),
        (["--weights", "nothing.pth"], r"nothing.pth"),
        (["--segment-actors", "500", "--num-cpus", "2"], r"cannot schedule the workers.*lower"),
        (["--device", "cuda"], r"device: cuda requested, but there is no GPU"),
        (["--config", "absent.yaml"], r"absent.yaml: no such configuration file"),
        (["--crf-theta-beta", "-1"], r"crf.theta_beta is -1.0; give a finite standard deviation above 0"),
        (["--max-error-fraction", "2"], r"max_error_fraction: got 2"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    segbatch: Run, pictures: Path, tmp_path: Path, args: list[str], says: str
) -> None:
    code, text = segbatch("run", str(pictures), "-o", str(tmp_path / "out"), "--dry-run", *args)
    assert code == 2
    assert re.search(says, text, re.DOTALL), text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_unknown_keys_suggest_the_nearest(segbatch: Run, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("inputs: [a.tar]\noutput: b\nchunk_sise: 4\n")
    code, text = segbatch("run", "--config", str(config))
    assert (code, "did you mean 'chunk_size'?" in text) == (2, True)
    config.write_text("inputs: [a.tar]\noutput: b\ncrf: {theta_apha: 4}\n")
    assert "did you mean 'crf.theta_alpha'?" in segbatch("run", "--config", str(config))[1]
    config.write_text("inputs: [a.tar\n")
    code, text = segbatch("run", "--config", str(config))
    assert (code, "not valid YAML" in text) == (2, True)
    config.write_text("!!python/object/apply:os.system ['true']\n")
    assert segbatch("run", "--config", str(config))[0] == 2


def test_inputs_that_are_not_there(segbatch: Run, pictures: Path, tmp_path: Path) -> None:
    code, text = segbatch("run", str(tmp_path / "picture"), "-o", str(tmp_path / "out"))
    assert code == 2
    assert "does not exist" in text
    assert "pictures" in text
    assert segbatch("run", str(pictures))[0] == 2
    assert segbatch("run", "-o", str(tmp_path / "out"))[0] == 2
    assert segbatch("stats", str(pictures))[0] == 2


@pytest.mark.usefixtures("local_ray")
def test_a_run_and_what_can_be_asked_of_it(segbatch: Run, tmp_path: Path) -> None:
    (shard,) = tars(tmp_path / "in", 1, 5)
    output = str(tmp_path / "out")
    run = ["run", shard, "-o", output, "--model", "tests.networks:fast", "--refiner", "none"]
    code, text = segbatch(*run)
    assert code == 0
    assert re.search(r"^\d\d:\d\d:\d\d 2/2 chunks, 0 errors, 5 images, [\d.]+/s$", text, re.MULTILINE)
    assert re.search(r"class +images +pixels +share +confidence", text)
    assert re.search(rf"^5 masks, 0 errors in [\d.]+ s: {output}\nnext: segbatch report {output}$", text, re.MULTILINE)
    code, text = segbatch("stats", output, "--json")
    found = json.loads(text)
    assert (found["done"], found["records"]) == (True, 5)
    assert [c["name"] for c in found["classes"]] == ["dark", "middle", "bright"]
    assert "5 masks, 0 errors" in segbatch("stats", output)[1]
    assert "no errors among 5 records" in segbatch("errors", output)[1]
    code, text = segbatch("verify", output)
    assert (code, "verified: every record exactly once" in text) == (0, True)
    code, text = segbatch(*run, "--refiner", "densecrf")
    assert code == 2
    assert "was written with different settings" in text
    victim = next((tmp_path / "out" / "masks").glob("*.parquet"))
    victim.unlink()
    code, text = segbatch("verify", output)
    assert (code, "NOT verified" in text) == (1, True)


@pytest.mark.usefixtures("local_ray")
def test_too_many_errors_exit_with_3(segbatch: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", [*photographs(3, side=48), ("page.jpg", b"<html>gone</html>")])
    run = ["run", str(folder), "-o", str(tmp_path / "out"), "--model", "null", "--refiner", "none"]
    code, text = segbatch(*run)
    assert code == 3
    assert "decode/UnknownFormat" in text
    assert "25.00% of the records are errors, more than max_error_fraction 1.00%" in text
    assert segbatch(*run, "--max-error-fraction", "0.25")[0] == 0
    code, text = segbatch("errors", str(tmp_path / "out"))
    assert code == 0
    assert "page.jpg  decode/UnknownFormat: no JPEG" in text


@pytest.mark.usefixtures("local_ray")
def test_the_demonstration(segbatch: Run, tmp_path: Path) -> None:
    from PIL import Image

    code, text = segbatch("demo", "--output", str(tmp_path / "demo"))
    assert code == 0
    for name in ("person", "cat", "motorbike"):
        assert re.search(rf"■ {name} +\d", text)
    with Image.open(tmp_path / "demo" / "contact-sheet.png") as sheet:
        assert sheet.width > 900
        assert len(sheet.getcolors(10**6) or range(10**6)) > 10_000  # photographs, not flat color
    page = tmp_path / "demo" / "report.html"
    assert re.search(rf"report: {page} \([\d.]+ kB, 4 images\); open it in a browser", text)
    assert page.read_text().count('class="mask right"') == 4


def test_models_are_listed(segbatch: Run) -> None:
    code, text = segbatch("models", "--json")
    listed = {m["name"] for m in json.loads(text)}
    assert code == 0
    assert {"deeplabv3plus_mobilenet_v2", "deeplabv3_resnet101", "lraspp_mobilenet_v3_large", "null"} <= listed
    voc = next(m for m in json.loads(text) if m["weights"] == "voc")
    assert voc["crf"] == {**describe("deeplabv3plus_mobilenet_v2").crf.parameters.to_dict(), "source": ANY}
    assert "deeplabv3_resnet50" in segbatch("models")[1]
    text = " ".join(segbatch("models", "deeplabv3_resnet50")[1].split())
    assert re.search(r"dense CRF w_bilateral 4, theta_alpha 67, .*\(DeepLab's .*not tuned", text)


@pytest.mark.parametrize("args", [("demo", "-o", ""), ("eval", "out", "--labels", "l", "--plot", " ")])
def test_an_empty_path_of_a_file_is_refused(segbatch: Run, args: tuple[str, ...]) -> None:
    code, text = segbatch(*args)
    assert code == 2
    assert "is empty or blank" in text
    assert args[-2] in text
