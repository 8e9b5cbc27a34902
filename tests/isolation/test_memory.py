"""The memory of a worker: its share, and what it may take beyond it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from segbatch.config.job import JobSpec
from segbatch.crf.memory import total_memory
from segbatch.isolation import Limits
from segbatch.isolation.memory import MemoryLimit, held_by_children, resident

GIB = 2**30
HOLD = "import sys; held = bytearray(b'x') * (48 * 2**20); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize("workers", [1, 2, 4, 32])
def test_the_shares_of_all_workers_are_70_percent_of_the_machine(workers: int) -> None:
    limit = MemoryLimit.of(100 * GIB, workers)
    assert limit.maximum == 70 * GIB
    assert limit.maximum - workers < workers * limit.share <= limit.maximum


def test_a_network_fits_into_the_share_of_a_small_machine() -> None:
    assert MemoryLimit.of(8 * GIB, 16).share == GIB
    assert MemoryLimit.of(GIB, 16) == MemoryLimit(GIB * 7 // 10, GIB * 7 // 10)


def test_one_huge_image_may_take_what_the_other_workers_leave() -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        others = held_by_children(os.getpid())
        assert others >= (resident(child.pid) or 0) >= 48 * 2**20
        roomy, full = MemoryLimit(GIB, others + GIB), MemoryLimit(GIB, others - 1)
        assert not roomy.is_exceeded_together(2 * GIB, os.getpid())
        assert full.is_exceeded_together(2 * GIB, os.getpid())
        assert roomy.is_exceeded_together(2 * GIB, os.getpid(), others_bytes=2 * GIB)
        assert not full.is_exceeded_together(GIB, os.getpid())  # its share
        child.communicate()
    assert held_by_children(child.pid) == 0


def test_the_limit_of_a_job_is_that_of_the_machine_that_asks() -> None:
    spec = JobSpec.create(inputs=["a.tar"], output="out")
    limits, total = Limits.of(spec, workers=4), total_memory()
    assert total is not None
    assert limits.memory() == MemoryLimit.of(total, 4)
    assert "for each of 4 workers, more while" in limits.describe_memory(is_cluster=False)
    assert "70 % of each machine" in limits.describe_memory(is_cluster=True)
    given = Limits.of(spec.model_copy(update={"max_worker_bytes": 3 * GIB}), workers=4)
    assert given.memory() == MemoryLimit(3 * GIB, 3 * GIB)
    assert given.describe_memory(is_cluster=True) == "at most 3.0 GiB for each worker"
