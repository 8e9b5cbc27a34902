"""The release workflow and the wheels' script refer to what exists, and agree with pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_workflow_is_published_from_jobs_that_pass_the_tests() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    jobs = workflow["jobs"]
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"version", "publish"}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in commands
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    (check,) = [command for command in commands if "GITHUB_REF_NAME" in command]
    for tag, code in (("v" + PROJECT["project"]["version"], 0), ("v9.9.9", 1)):
        done = subprocess.run(["bash", "-c", check], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"})
        assert done.returncode == code, tag


def test_each_wheel_is_tried_by_the_script_that_exists() -> None:
    configured = PROJECT["tool"]["cibuildwheel"]
    (script,) = re.findall(r"\{project\}/(\S+)", configured["test-command"])
    assert (ROOT / script).is_file()
    assert script in (ROOT / "deploy/wheels.sh").read_text()
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=").replace(".", "")
    assert {
        f"cp{oldest}-manylinux_x86_64",
        f"{PROJECT['tool']['scikit-build']['wheel']['py-api']}-manylinux_x86_64",
    } == {*configured["build"]}
