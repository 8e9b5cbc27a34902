"""One machine (systemd, cron) and the image: what the files name is there, and their commands run."""

from __future__ import annotations

import datetime
import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from tests.cluster.jobs import environment, tars

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SEGBATCH = "/opt/segbatch/.venv/bin/segbatch"
CONFIG = "/etc/segbatch/nightly.yaml"


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """The paths that the files name, and what stands for them on this machine."""
    job = {"inputs": tars(tmp_path / "in", 1, 3), "output": str(tmp_path / "out"), "model": "null"}
    spec = {"state": str(tmp_path / "state"), "datasets": {"photos": job}}
    (tmp_path / "nightly.yaml").write_text(yaml.safe_dump(spec))
    return {
        SEGBATCH: str(Path(sys.executable).with_name("segbatch")),
        CONFIG: str(tmp_path / "nightly.yaml"),
        "/tmp/segbatch.lock": str(tmp_path / "lock"),
        "/var/log/segbatch.log": str(tmp_path / "log"),
    }


def localized(text: str, here: dict[str, str]) -> str:
    for there, path in here.items():
        text = text.replace(there, path)
    return text


def settings(unit: str) -> dict[str, str]:
    lines = (DEPLOY / "systemd" / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_job_is_one() -> None:
    given = yaml.safe_load((DEPLOY / "job.yaml").read_text())
    assert JobSpec.create(**given).inputs == ["s3://BUCKET/shards/*.tar"]


def test_the_night_is_the_same_job() -> None:
    spec = NightlySpec.load(DEPLOY / "nightly.yaml")
    job = JobSpec.create(**yaml.safe_load((DEPLOY / "job.yaml").read_text()))
    assert [spec.job_of(name, datetime.date(2026, 11, 20)) for name in spec.datasets] == [job]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("broken", [False, True])
def test_systemd_accepts_the_units(tmp_path: Path, here: dict[str, str], broken: bool) -> None:
    for unit in ("segbatch.service", "segbatch.timer"):
        text = localized((DEPLOY / "systemd" / unit).read_text(), here)
        text = text.replace("OnCalendar=", "OnCalender=") if broken else text
        (tmp_path / unit).write_text(text)
    units = [str(tmp_path / u) for u in ("segbatch.service", "segbatch.timer")]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "segbatch" in line]
    assert bool(said or done.returncode) == broken, done.stderr


def test_the_service_runs_the_job(here: dict[str, str]) -> None:
    service = settings("segbatch.service")
    assert service["ExecStart"] == f"{SEGBATCH} nightly {CONFIG}"
    assert service["Type"] == "oneshot"
    assert service["RestartPreventExitStatus"].split() == ["2", "3", "4", "5"]
    command = shlex.split(localized(service["ExecStart"], here))
    done = subprocess.run([*command, "--dry-run"], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 shard to compute" in done.stdout


def test_the_crontab_line_runs_the_job_once(here: dict[str, str]) -> None:
    (line,) = [x for x in (DEPLOY / "crontab").read_text().splitlines() if x and not x.startswith("#")]
    *fields, command = line.split(None, 5)
    assert [bool(re.fullmatch(r"\d+|\*", f)) for f in fields] == [True] * 5
    assert "%" not in command, "cron ends the command at a percent sign"
    assert command == (
        f"flock --nonblock --conflict-exit-code 0 /tmp/segbatch.lock {SEGBATCH} nightly {CONFIG} "
        ">> /var/log/segbatch.log 2>&1"
    )
    command = localized(command, here)
    lock, log = Path(here["/tmp/segbatch.lock"]), Path(here["/var/log/segbatch.log"])
    with subprocess.Popen(["flock", str(lock), "sh", "-c", "echo held; read _"], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert subprocess.run(["sh", "-c", command], env=environment(), timeout=60).returncode == 0
        assert log.read_text() == "", "last night's run still runs, so this one leaves"
        holder.communicate(b"\n")
    dry = command.replace(" >>", " --dry-run >>")
    assert subprocess.run(["sh", "-c", dry], env=environment(), timeout=120).returncode == 0
    assert "1 of 1 shard to compute" in log.read_text()


def dockerfile() -> list[list[str]]:
    """Instructions, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.split() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def allowed(path: str) -> bool:
    """Whether the build context holds ``path``: the last pattern of .dockerignore that fits it or a folder above."""
    patterns = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    parents = [str(p) for p in [Path(path), *Path(path).parents][:-1]]
    held = True
    for pattern in (p.strip() for p in patterns if p.strip() and not p.startswith("#")):
        if any(fnmatch.fnmatch(p, pattern.removeprefix("!")) for p in parents):
            held = pattern.startswith("!")
    return held


def test_what_the_image_copies_is_there() -> None:
    stages = {words[3] for words in dockerfile() if words[0] == "FROM" and len(words) > 2}
    assert stages == {"build"}
    copied = [source for words in dockerfile() if words[0] == "COPY" for source in words[1:-1]]
    assert {"segbatch", "jobs", "pyproject.toml", "deploy/wait_for_nodes.py"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert allowed(source), f"{source}: kept out by Dockerfile.dockerignore"
    for private in (".git/config", ".venv/bin/python", "tests/conftest.py", "segbatch/crf/_core.abi3.so"):
        assert not allowed(private), private
    needed = yaml.safe_load(f"[{re.search(r'license-files = .(.*).', (ROOT / 'pyproject.toml').read_text())[1]}]")  # type: ignore[index]
    assert set(needed) <= set(copied), "the wheel needs them"


def test_the_image_is_made_with_the_ray_that_is_tested() -> None:
    (base,) = [words[1] for words in dockerfile() if words[0] == "ARG"]
    found = re.fullmatch(r"BASE=rayproject/ray:(\d+\.\d+)\.\d+-py311-cpu", base)
    assert found, base
    assert f"ray[data,default]>={found[1]}" in (ROOT / "pyproject.toml").read_text()
    for manifest in (DEPLOY / "kuberay").glob("ray*.yaml"):
        assert f'rayVersion: "{found[1]}.0"' in manifest.read_text(), manifest.name
