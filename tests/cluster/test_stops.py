"""A run is stopped by signals at random moments: it ends soon, says what is committed, and leaves no process."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest

from segbatch.operations.verify import verify
from tests.cluster.jobs import ROOT, environment, wait_for
from tests.corpus import photographs, write_folder

MOMENTS = int(os.environ.get("SEGBATCH_STOPS", "40"))
SEED = int(os.environ.get("SEGBATCH_STOPS_SEED", "1"))
IMAGES = 600
MARK = "SEGBATCH_TEST_STOPS"


def left(mark: str) -> list[str]:
    """The names of live processes that have ``mark`` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:80])
        except psutil.Error:
            continue
    return found


def rows(output: Path) -> int:
    files = [str(path) for path in (output / "masks").glob("*.parquet")]
    return ds.dataset(files).count_rows() if files else 0


def seconds_to_first_chunk(command: list[str], output: Path) -> float:
    """Start the command, and kill it when it has committed something."""
    begun = time.monotonic()
    with subprocess.Popen(command, env=environment(None), cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: rows(output))
        process.kill()
    return time.monotonic() - begun


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_run_that_is_stopped_at_any_moment_leaves_nothing_and_resumes(tmp_path: Path):
    write_folder(tmp_path / "in", photographs(IMAGES, side=48))
    output, mark, draw = tmp_path / "out", str(tmp_path), random.Random(SEED)
    command = [sys.executable, "-m", "segbatch", "run", str(tmp_path / "in"), "-o", str(output)]
    command += ["--model", "tests.networks:slow", "--chunk-size", "4", "--refiner", "none"]
    said, latest = 0, 1.6 * seconds_to_first_chunk(command, output)
    for turn in range(MOMENTS):
        number, to_group = draw.choice([signal.SIGINT, signal.SIGTERM]), draw.random() < 0.5
        seconds = draw.uniform(0, latest)
        what = f"stop {turn}: {number.name} {'to the group' if to_group else 'to the process'} after {seconds:.2f} s"
        environ = environment({MARK: mark})
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        with subprocess.Popen(command, env=environ, cwd=ROOT, **streams) as process:
            time.sleep(seconds)
            os.killpg(process.pid, number) if to_group else process.send_signal(number)
            text, _ = process.communicate(timeout=60)
        if process.returncode == -number:  # before the command could handle it: Python itself was starting
            continue
        assert process.returncode in (0, 128 + number), f"{what}: exit {process.returncode}\n{text}"
        assert "Traceback" not in text, f"{what}\n{text}"
        assert left(mark) == [], f"{what}\n{text}"
        if process.returncode:
            last = (text.splitlines() or [""])[-1]
            assert last.startswith("stopped"), f"{what}\n{text or 'nothing said'}"
            if told := re.match(r"stopped: (\d+) of (\d+) images committed", last):
                assert (int(told[1]), int(told[2])) == (rows(output), IMAGES), f"{what}\n{text}"
                said += 1
    assert said > MOMENTS / 8
    done = subprocess.run(command, env=environment(None), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows(output) == IMAGES
    assert verify(str(output), read_input=True).ok
