"""The short chaos: jobs over several nodes while one of each kind is killed, and one request of seven fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from tests.chaos.chaos import difference
from tests.chaos.world import KINDS
from tests.cluster.jobs import environment


@pytest.mark.long
def test_one_kill_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    # In a process of its own: a local Ray that other tests have started in this one leaves Ray bound to loopback here.
    command = [sys.executable, "-m", "tests.chaos", "--brief", "--seed", "20261125"]
    chaos = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        told, _ = chaos.communicate(timeout=500)
    finally:
        if chaos.poll() is None:
            os.killpg(chaos.pid, signal.SIGKILL)
    with capsys.disabled():
        print("\n" + told)
    assert chaos.returncode == 0, told
    assert all(f" killed: {kind}\n" in told for kind in KINDS)


def test_the_judge_finds_every_difference() -> None:
    expected = pa.table({"image_id": ["a", "b", "c"], "mask": [b"1", b"2", b"3"]})
    assert difference(expected, expected) is None
    other = expected.set_column(1, "mask", pa.array([b"1", b"2", b"X"]))
    assert difference(other, expected) == "other values in mask"
    assert difference(expected.take([0, 2]), expected) == "1 records are lost, the first is b"
    assert difference(expected.take([0, 1, 2, 2]), expected) == "1 records are there twice, the first is c"
    assert difference(expected, expected.slice(1)) == "1 records are of no input, the first is a"
    assert "other columns" in str(difference(expected.select(["image_id"]), expected))
