"""A command that is told to stop: its exit code, its last line, and nothing that is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

MARK = "SEGBATCH_TEST_STOPPING"
COMMAND = """
import os, subprocess, sys, time
from segbatch import stopping
from segbatch.cli.signals import supervised

def command():
    {body}

supervised(command)
"""
# A child of its own session whose own parent has ended: what Ray's agents are.
ORPHAN = "subprocess.run(['setsid', '-f', 'sleep', '300']);"
WAIT = "print('ready', flush=True); time.sleep(300)"


@contextmanager
def started(body: str, mark: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run ``body`` as a supervised command in a session of its own, until it is ready."""
    source = COMMAND.format(body=textwrap.indent(textwrap.dedent(body), "    ").strip())
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True, **options}
    with subprocess.Popen([sys.executable, "-c", source], env={**os.environ, MARK: mark}, **options) as process:
        if "ready" in body:
            process.stdout.readline()
        yield process


def left(mark: str) -> list[str]:
    """The command lines of live processes that ``start`` has started, directly or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_ends_the_command_and_all_that_it_started(mark: str, number: signal.Signals, to_group: bool):
    with started(f"stopping.add(lambda: 'stopped: 2 of 3'); {ORPHAN} {WAIT}", mark) as process:
        os.killpg(process.pid, number) if to_group else process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (128 + number, "stopped: 2 of 3\n")
        assert left(mark) == []


def test_the_latest_callback_is_first_and_one_that_fails_is_told(mark: str):
    body = f"""
    stopping.add(lambda: 'first')
    stopping.add(lambda: 1 / 0)
    stopping.add(lambda: 'last')
    {WAIT}
    """
    with started(body, mark) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1].splitlines() == ["last", "while stopping: division by zero", "first"]


def test_a_second_signal_does_not_wait(mark: str):
    with started(f"stopping.add(lambda: time.sleep(300)); {ORPHAN} {WAIT}", mark) as process:
        process.send_signal(signal.SIGINT)
        while not any("sleep" in line for line in left(mark)):
            time.sleep(0.01)
        time.sleep(1.2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT
        assert told == "stopped; committed chunks are kept, the same command resumes\n"
        assert left(mark) == []


def test_what_is_frozen_commits_nothing_more(mark: str, tmp_path: Path):
    ticking = "import time\nfor i in range(10**6): open({!r}, 'w').write(str(i)); time.sleep(0.001)"
    file = tmp_path / "ticks"
    body = f"""
    subprocess.Popen([sys.executable, "-c", {ticking.format(str(file))!r}])
    def count():
        while not os.path.exists({str(file)!r}): time.sleep(0.01)
        time.sleep(0.1)
        before = open({str(file)!r}).read()
        time.sleep(0.5)
        return str(before == open({str(file)!r}).read())
    stopping.add(count)
    while not os.path.exists({str(file)!r}): time.sleep(0.01)
    {WAIT}
    """
    with started(body, mark) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == "True\n"


def test_the_line_is_told_while_stderr_leads_elsewhere(mark: str):
    with started(
        f"stopping.add(lambda: 'told'); os.dup2(os.open(os.devnull, os.O_WRONLY), 2); {WAIT}", mark
    ) as process:
        process.terminate()
        assert process.communicate(timeout=60)[1] == "told\n"


def test_the_child_passes_a_signal_on(mark: str):
    with started(
        "stopping.add(lambda: 'stopped'); print('ready', os.getpid(), flush=True); time.sleep(300)", mark
    ) as p:
        child = psutil.Process(p.pid).children()[0]
        child.terminate()
        assert (p.communicate(timeout=60)[1], p.returncode) == ("stopped\n", 143)


def test_a_suspended_command_is_suspended_as_a_whole(mark: str):
    def states() -> set[str]:
        return {p.status() for p in (parent, *parent.children(recursive=True))}

    with started(f"subprocess.Popen(['sleep', '300']); {WAIT}", mark) as process:
        parent = psutil.Process(process.pid)
        process.send_signal(signal.SIGTSTP)
        while states() != {psutil.STATUS_STOPPED}:
            time.sleep(0.01)
        process.send_signal(signal.SIGCONT)
        while psutil.STATUS_STOPPED in states():
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=60) == 143
        assert left(mark) == []


def test_an_ignored_signal_stays_ignored(mark: str):
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    with started("print('ready', flush=True); time.sleep(1)", mark, preexec_fn=ignore) as process:
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("code", [0, 1, 3, 5])
def test_an_end_of_its_own_keeps_its_exit_code(mark: str, code: int):
    with started(f"{ORPHAN} sys.exit({code})", mark) as process:
        assert process.wait(timeout=60) == code
        assert left(mark) == []


def test_a_kill_is_told(mark: str):
    with started(f"{ORPHAN} os.kill(os.getpid(), 9)", mark) as process:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        assert told.startswith("error: the process was ended by SIGKILL; is memory short?")
        assert left(mark) == []


def test_nothing_outlives_a_kill_of_the_parent(mark: str):
    with started("print('ready', flush=True); time.sleep(300)", mark) as process:
        process.kill()
        process.wait(timeout=60)
        while left(mark):
            time.sleep(0.01)
