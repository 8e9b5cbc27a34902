"""What flags mean in each command, and what is printed where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segbatch.config.training import TrainSpec
from tests import here
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = [*photographs(3, side=40), ("page.jpg", b"<html>gone</html>"), ("notes.docx", b"-")]
    return write_folder(tmp_path_factory.mktemp("corpus") / "in", files)


@pytest.fixture(scope="module")
def output(inputs: Path) -> Path:
    here.run(here.spec([str(inputs)], inputs.parent / "my masks"))
    return inputs.parent / "my masks"


def test_a_plan_as_json(command: Command, inputs: Path, tmp_path: Path) -> None:
    job = ["run", inputs, "-o", tmp_path / "out", "--model", "null", "--refiner", "none", "--num-cpus", 2, "--dry-run"]
    job += ["--chunk-size", 4]
    code, text, log = command(*job, "--json")
    plan = json.loads(text)
    assert (code, plan["inputs"], plan["output"]) == (0, [str(inputs)], str(tmp_path / "out"))
    assert (plan["records"], plan["chunks"], plan["chunk_size"], plan["chunks_committed"]) == (4, 1, 4, 0)
    assert (plan["model"], plan["refiner"], plan["cpus"], plan["warnings"]) == ("null", "none", 2, [])
    assert plan["skipped"]["with an unknown suffix"] == {"count": 1, "names": ["notes.docx"]}
    assert "reading inputs" in log
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    table = readme.split("The plan has these keys:")[1].split("\n\n")[1]
    assert all(f"`{key}`" in table for key in plan)
    assert not (tmp_path / "out").exists()
    assert command(*job)[1].startswith("input        1 shard (images)")


def test_of_several_configurations_the_later_takes_precedence(command: Command, inputs: Path, tmp_path: Path) -> None:
    job, crf = tmp_path / "job.yaml", tmp_path / "crf.yaml"
    job.write_text(
        f"inputs: ['{inputs}']\noutput: '{tmp_path}/out'\nprune: 0.1\ncrf: {{theta_alpha: 9, theta_beta: 8}}\n"
    )
    crf.write_text("prune: 0.2\ncrf: {theta_beta: 7}\n")
    given = ["run", "--config", job, "--config", crf, "--crf-w-spatial", "2", "--dry-run", "--json"]
    plan = json.loads(command(*given)[1])
    parameters = plan["refiner_parameters"]
    assert (plan["prune"], parameters["theta_alpha"], parameters["theta_beta"]) == (0.2, 9, 7)
    assert parameters["w_spatial"] == 2


def test_results_as_json(command: Command, output: Path) -> None:
    code, text, log = command("errors", output, "--json")
    shown = json.loads(text)
    assert (code, log, shown["records"], shown["errors"]) == (0, "", 4, {"decode/UnknownFormat": 1})
    (row,) = shown["rows"]
    assert (row["image_id"], row["stage"], row["type"]) == ("page.jpg", "decode", "UnknownFormat")
    code, text, _ = command("verify", output, "--json")
    shown = json.loads(text)
    assert (code, shown["verified"], shown["masks"], shown["errors"], shown["problems"]) == (0, True, 3, 1, [])
    shown = json.loads(command("models", "segnet", "--json")[1])
    assert [(info["name"], info["weights"]) for info in shown] == [("segnet", None)]


def test_the_next_command_can_be_pasted(command: Command, output: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "my masks"
    damaged.symlink_to(output)
    (file,) = (output / "masks").glob("*.parquet")
    data = file.read_bytes()
    file.write_bytes(b"PAR1")
    code, text, _ = command("verify", damaged)
    file.write_bytes(data)
    assert code == 1
    assert text.endswith(f"NOT verified\nnext: segbatch verify '{damaged}' --repair\n")


def test_one_network_in_full_and_all_within_80_columns(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, table, _ = command("models")
    assert (code, max(map(len, table.splitlines())) <= 80) == (0, True)
    code, text, _ = command("models", "deeplabv3plus_mobilenet_v2")
    assert max(len(line) for line in text.splitlines() if not line.startswith("command")) <= 80
    for part in (
        "pottedplant, sheep",
        "pedestrian",
        "CC BY-NC 4.0",
        "--model deeplabv3plus_mobilenet_v2 --weights camvid",
    ):
        assert part in text
    assert command("models", "deeplabv3")[0] == 2


def test_tuning_has_only_flags_with_an_effect_and_replaces_no_file(
    command: Command, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crf.yaml").write_text("mine")
    code, _, error = command("tune-crf", inputs, "--labels", "labels")
    assert (code, error) == (2, "error: crf.yaml exists; choose another --output, or --overwrite to replace it\n")
    text = command("tune-crf", "--help-all")[1]
    for flag in ("--chunk-size", "--retry-errors", "--max-error-fraction", "--refiner ", "--marginal", "--write"):
        assert flag not in text
    assert Path("crf.yaml").read_text() == "mine"


def test_names_of_earlier_versions_are_taken() -> None:
    fields = {"inputs": ["in"], "labels": "labels", "output": "out"}
    assert TrainSpec.create(**fields, until=4).stop_after == 4


def test_quiet_prints_what_needs_attention_alone(command: Command, inputs: Path, output: Path) -> None:
    job = ["run", inputs, "-o", output, "--model", "tests.networks:fast", "--refiner", "none"]
    code, text, log = command(*job, "-q", "--max-error-fraction", "0.5")
    assert (code, text, log) == (0, "", "")
    code, text, log = command(*job, "-q")
    assert (code, log) == (3, "")
    assert "25.00% of the records are errors, more than max_error_fraction 1.00%" in text
    assert text.endswith(f"next: segbatch errors '{output}'; segbatch report '{output}'\n")
    code, text, _ = command(*job, "--json")
    assert (code, json.loads(text)["errors"], json.loads(text)["exit_code"]) == (3, {"decode/UnknownFormat": 1}, 3)
