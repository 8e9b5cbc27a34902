"""Ray in local runs, looked at from outside: which sockets listen where, and what they ask of those who knock."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest
import ray

from segbatch.errors import SegbatchError
from segbatch.planning.pools import Hardware
from segbatch.ray_backend import local

_ASK = (
    "import sys; from ray._raylet import GcsClient; print(GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None))"
)


_AGENT_PORT = 52365  # Ray's default


@ray.remote
class _Worker:
    def pid(self) -> int:
        return os.getpid()


def test_every_socket_of_a_local_run_listens_on_loopback(local_ray):
    worker = _Worker.remote()
    pid = ray.get(worker.pid.remote())
    listening = {}
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that Ray started ahead may end meanwhile
            name = process.name()
            for c in process.net_connections("inet"):
                if c.status == psutil.CONN_LISTEN or (c.type == 2 and not c.raddr):
                    listening[c.laddr.ip, c.laddr.port] = name
    assert {"gcs_server", "raylet"} <= set(listening.values())
    assert pid in {p.pid for p in family}
    open_to_others = {}
    for (ip, port), name in listening.items():
        address = ipaddress.ip_address(ip)
        if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
            open_to_others[ip, port] = name
    assert not open_to_others


@pytest.mark.parametrize("token", ["none", "wrong", "right"])
def test_who_has_not_the_token_of_the_run_is_turned_away(local_ray, token: str):
    env = dict(os.environ)
    if token == "none":
        env["RAY_AUTH_MODE"] = "disabled"
    elif token == "wrong":
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}
    address = ray.get_runtime_context().gcs_address
    asked = subprocess.run([sys.executable, "-c", _ASK, address], capture_output=True, text=True, env=env)
    assert (asked.returncode == 0) == (token == "right"), asked.stderr
    assert ("InvalidAuthToken" in asked.stderr) == (token != "right")


def test_the_agent_that_takes_jobs_asks_for_the_token(local_ray):
    end = time.monotonic() + 60
    while not (ours := _agents_listen()) and time.monotonic() < end:
        if _answer(_AGENT_PORT) is not None and not _agents_listen():
            pytest.skip(f"another Ray on this machine has port {_AGENT_PORT}; the agent of this one does without")
        time.sleep(0.5)  # it listens some time after Ray has started
    assert ours
    assert _answer(_AGENT_PORT) == 401


def _agents_listen() -> bool:
    """Whether it is an agent of this process's Ray that listens where Ray's agents take jobs."""
    agents = [p for p in psutil.Process().children(recursive=True) if "DashboardAgent" in p.name()]
    connections = [c for agent in agents for c in agent.net_connections("inet4")]
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == _AGENT_PORT for c in connections)


def _answer(port: int) -> int | None:
    """HTTP status of a question for jobs without a token; None if nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/job_agent/jobs/", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        e.close()
        return e.code
    except OSError:
        return None


def test_files_and_sockets_of_the_run_are_closed_to_other_users(local_ray):
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert any(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in session.parents[:-2])
    assert (session / "sockets" / "raylet").is_socket()


def test_nothing_is_left_behind_and_nothing_written_into_the_home(tmp_path: Path):
    code = """
import os
from segbatch.ray_backend import local
from segbatch.planning.pools import Hardware
local.start(Hardware(1, 0, 1, 0), log_to_driver=False)
assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
assert os.path.isdir(local._folder)
print(local._folder)
local.stop()
assert "RAY_AUTH_TOKEN" not in os.environ
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with open(tmp_path / "out", "w") as out:  # Ray's processes would hold a pipe open while they end
        subprocess.run([sys.executable, "-c", code], stdout=out, env={**env, "HOME": str(tmp_path)}, check=True)
    assert not Path((tmp_path / "out").read_text().split()[-1]).exists()
    assert not list(tmp_path.rglob("auth_token"))


def test_a_module_in_the_current_folder_breaks_no_worker_that_does_not_search_it(tmp_path: Path):
    for name in ("numpy", "random", "ray", "segbatch"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not the module that is meant')")
    code = """
import ray
from segbatch.ray_backend import local
from segbatch.planning.pools import Hardware
local.start(Hardware(1, 0, 1, 0), log_to_driver=False)
@ray.remote
def task():
    import numpy, random, segbatch
    return numpy.ones(3).sum()
assert ray.get(task.remote(), timeout=60) == 3
"""
    with open(tmp_path / "out", "w") as out:  # Ray's processes would hold a pipe open while they end
        subprocess.run([sys.executable, "-P", "-c", code], stdout=out, check=True, cwd=tmp_path)


@pytest.mark.parametrize("failures", [2, 3])
def test_a_machine_too_busy_for_ray_to_start_is_tried_again(monkeypatch: pytest.MonkeyPatch, failures: int):
    calls = []

    def init(**options: object) -> None:
        calls.append(options)
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab" * 32)
    for name, value in {"_folder": None, "_held": None, "_own_token": False, "atexit": MagicMock()}.items():
        monkeypatch.setattr(local, name, value)  # those of the Ray that other tests use are put back
    monkeypatch.setattr(local.ray, "init", init)
    monkeypatch.setattr(local.ray, "shutdown", lambda: None)
    monkeypatch.setattr(local.ray, "nodes", lambda: [{"NodeManagerAddress": "127.0.0.1"}])
    expected = pytest.raises(SegbatchError, match=r"in 3 attempts.*timed out") if failures == 3 else nullcontext()
    try:
        with expected:
            local.start(Hardware(1, 0, 1, 0))
        folders = {options["_temp_dir"] for options in calls}
        assert len(calls) == len(folders) == 3
        assert sum(Path(f).parent.exists() for f in folders) == 3 - failures
    finally:
        local.stop()


@pytest.mark.parametrize(
    ("variable", "length"), [("RAY_TMPDIR", 39), ("RAY_TMPDIR", 90), ("TMPDIR", 29), ("TMPDIR", 90)]
)
def test_sockets_have_short_names_however_long_the_folder_is(
    monkeypatch: pytest.MonkeyPatch, variable: str, length: int
):
    calls: list[str] = []
    monkeypatch.setattr(local, "ray", MagicMock(init=lambda **options: calls.append(options["_temp_dir"])))
    for name, value in {"_folder": None, "_held": None, "_own_token": False, "atexit": MagicMock()}.items():
        monkeypatch.setattr(local, name, value)  # those of the Ray that other tests use are put back
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab" * 32)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        chosen = Path(base, "x" * (length - len(base) - 1))
        chosen.mkdir()
        monkeypatch.setenv(variable, str(chosen))
        monkeypatch.setattr(tempfile, "tempdir", None)  # it is kept from the first use on
        try:
            local.start(Hardware(1, 0, 1, 0))
            assert len(f"{calls[0]}/session_2026-11-30_21-20-43_844009_4194304/sockets/plasma_store") <= 107
            if variable == "RAY_TMPDIR":
                assert Path(calls[0]).resolve() == (chosen / "ray").resolve()
        finally:
            local.stop()


def test_an_unwritable_folder_for_ray_is_named_before_ray_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    with pytest.raises(SegbatchError, match=r"^Ray cannot start: RAY_TMPDIR: .*/proc/none.*a writable folder"):
        local.start(Hardware(1, 0, 1, 0))


def test_folders_of_drivers_that_were_killed_are_swept_and_others_are_not(tmp_path: Path):
    code = """
import os, sys, time
from segbatch.ray_backend import local
print(local._own_folder(sys.argv[1]), flush=True)
time.sleep(60)
"""
    drivers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(driver.stdout.readline().strip()) for driver in drivers)
        (tmp_path / "segbatch-foreign").mkdir()
        (killed / "r").mkdir()
        drivers[0].kill()
        drivers[0].wait()
        swept = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        drivers.append(swept)
        own = Path(swept.stdout.readline().strip())
        assert set(tmp_path.iterdir()) == {living, own, tmp_path / "segbatch-foreign"}
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()
