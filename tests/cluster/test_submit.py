"""``ray job submit`` for real, against ``ray start --head`` on this machine, which asks for a token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.cluster.jobs import ROOT, environment, rows, tars, wait_for

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head on ports of its own; the environment in which its clients speak to it."""
    env = environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex + uuid.uuid4().hex})
    folder = tmp_path_factory.mktemp("ray")
    for attempt in range(3):  # Ray gives a head 30 seconds to start, which a busy machine may not keep
        port, dashboard = _free_port(), _free_port()
        command = [
            RAY, "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2",
            "--dashboard-host=127.0.0.1", f"--dashboard-agent-listen-port={_free_port()}",
            "--disable-usage-stats", f"--temp-dir={_short(folder)}", "--block",
        ]  # fmt: skip
        log = folder / f"head{attempt}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            wait_for(lambda: process.poll() is not None or "Ray runtime started" in log.read_text(), 120)  # noqa: B023
            if process.poll() is None:
                yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
                return
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # asked to end, it takes half a minute
            process.wait(60)
    pytest.fail(f"the Ray head did not start:\n{log.read_text()}")


def submit(head: dict[str, str], *args: str) -> tuple[int, str]:
    """``segbatch ARGS`` as README.md has it submitted, or a script of ``jobs/``, which is uploaded."""
    uploaded = args[0].endswith(".py")
    how = ["--working-dir", str(ROOT / "jobs")] if uploaded else []
    entry = [sys.executable, *([] if uploaded else ["-m", "segbatch"]), *args]
    command = [RAY, "job", "submit", *how, "--", *entry]
    for _ in range(6):  # the agent that runs jobs comes up some seconds after the dashboard
        done = subprocess.run(command, env=head, capture_output=True, text=True, timeout=240)
        if "No available agent" not in done.stdout + done.stderr:
            break
        time.sleep(1)
    return done.returncode, done.stdout + done.stderr


def test_a_job_from_its_configuration(head: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    spec = {
        "inputs": tars(tmp_path / "in", 2, 10),
        "output": str(tmp_path / "out"),
        "model": "tests.networks:fast",
        "refiner": "none",
        "chunk_size": 5,
    }
    config.write_text(yaml.safe_dump(spec))
    code, log = submit(head, "run", "--config", str(config))
    assert code == 0, log
    assert len(rows(tmp_path / "out")) == 20
    assert "20 masks, 0 errors" in log
    assert "4/4 chunks, 0 errors, 20 images" in log
    assert "succeeded" in log
    code, log = submit(head, "run", "--config", str(config))
    assert code == 0, log
    assert "(4 of 4 chunks committed before)" in log


def test_the_exit_status_tells_what_went_wrong(head: dict[str, str], tmp_path: Path) -> None:
    code, log = submit(head, "segment.py", str(tmp_path / "nothing-here"), "--output", str(tmp_path / "out"))
    assert code == 1
    assert "does not exist" in log
    assert "exit code 2" in log
    assert "Traceback" not in log
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    code, log = submit(
        head,
        "segment.py",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--model",
        "null",
        "--refiner",
        "none",
    )
    assert code == 1
    assert "exit code 3" in log
    assert "EmptyImage" in log
    assert json.loads((tmp_path / "out" / "run.json").read_text())["totals"]["records"] == 1


def test_a_night(head: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "nightly.yaml"
    tars(tmp_path / "in", 2, 10)
    street = {"inputs": f"{tmp_path}/in/*.tar", "output": str(tmp_path / "out")}
    job = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 5}
    config.write_text(yaml.safe_dump({"state": str(tmp_path / "state"), "job": job, "datasets": {"street": street}}))
    code, log = submit(head, "nightly.py", str(config))
    assert code == 0, log
    assert "2 of 2 shards to compute: 2 new, 0 changed; 0 gone" in log
    assert len(rows(tmp_path / "out")) == 20
    assert (tmp_path / "out" / "_SUCCESS").exists()
    summaries = list((tmp_path / "state" / "nights").glob("*/summary.md"))
    assert [s.read_text().partition(": ")[2].splitlines()[0] for s in summaries] == ["ok"]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _short(folder: Path) -> str:
    """Unix sockets below this folder have names of at most 107 bytes, so pytest's own are too long."""
    path = Path("/tmp") / f"r{os.getpid()}{folder.name[-4:]}"
    path.mkdir(exist_ok=True)
    return str(path)
