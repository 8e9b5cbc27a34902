"""The diagnosis of a machine: what works is said, what would fail has a remedy, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from typer.testing import CliRunner

from segbatch.cli.app import app
from segbatch.operations import doctor as module
from segbatch.operations.doctor import Check, Diagnosis, doctor

NAMES = [
    "platform",
    "packages",
    "processor",
    "GPU",
    "memory",
    "temporary files",
    "shared memory",
    "modules",
    "token",
    "Ray",
]


@pytest.fixture(scope="module", autouse=True)
def _ray(local_ray: None) -> None:
    """A Ray that the diagnosis joins."""


def by_name(diagnosis: Diagnosis) -> dict[str, Check]:
    return {check.name: check for check in diagnosis.checks}


def test_a_machine_that_works(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    diagnosis = doctor([str(tmp_path / "out"), str(tmp_path / "new"), "memory://doctor/out"])
    checks = by_name(diagnosis)
    assert list(checks)[: len(NAMES)] == NAMES
    assert diagnosis.ok, diagnosis
    assert all(check.remedy for check in diagnosis.checks if check.status != "ok")
    assert "lists 0 names, writes and removes" in checks[f"store {tmp_path}/out"].found
    assert "lists 0 names, writes and removes" in checks["store memory://doctor/out"].found
    assert "can be created" in checks[f"store {tmp_path}/new"].found
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
    assert fsspec.filesystem("memory").find("/doctor") == []


def test_what_would_fail_is_a_problem_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(module, "version", lambda name: "1.0" if name != "ray" else _absent(name))
    monkeypatch.setattr(module, "free_memory", lambda needed: 3 * 10**9)
    diagnosis = doctor([str(tmp_path / "notes.txt" / "out")], settings={"num_gpus": 1, "num_cpus": 8, "address": None})
    checks = by_name(diagnosis)
    assert not diagnosis.ok
    assert (checks["packages"].status, checks["packages"].remedy) == ("problem", "pip install 'ray[data,default]'")
    assert (checks["GPU"].status, "there is no GPU" in checks["GPU"].found) == ("problem", True)
    assert (checks["token"].status, "unset RAY_AUTH_MODE" in checks["token"].remedy) == ("warning", True)
    assert "Not a directory" in checks[f"store {tmp_path}/notes.txt/out"].found


def _absent(name: str) -> str:
    raise module.PackageNotFoundError(name)


def test_too_many_workers_for_the_memory_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda needed: 9 * 10**9)
    memory = by_name(doctor(settings={"num_cpus": 8}))["memory"]
    assert memory.status == "warning"
    assert "16 workers may need 32.0 GB" in memory.found
    assert memory.remedy.startswith("give --segment-actors 2 --refine-actors 2")


def run(*args: str) -> tuple[int, str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["doctor", *args, "--json"])
    return done.exit_code, done.stdout, json.loads(done.stdout)


def test_the_report_has_the_outputs_of_a_configuration_and_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "nightly.yaml"
    secret = "hunter2hunter2"
    night = {"inputs": ["x/*.tar"], "output": f"memory://user:{secret}@doctor/out"}
    config.write_text(yaml.safe_dump({"state": str(tmp_path), "datasets": {"street": night}}))
    code, text, report = run("--config", str(config), "--output", "nosuch://bucket")
    assert code == 1
    assert secret not in text
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert statuses[f"store {tmp_path}"] == statuses["store memory://doctor/out"] == "ok"
    assert statuses["store nosuch://bucket"] == "problem"


def test_people_read_one_paragraph_for_each_check(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = CliRunner().invoke(app, ["doctor", "-o", str(tmp_path / "notes.txt" / "out")], env={"COLUMNS": "80"})
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok      platform: Linux")
    assert any(line.startswith(f"problem store {tmp_path}/notes.txt/out:") or line == "problem store" for line in lines)
    assert lines[-1].startswith("1 problem, ")
