"""The pools always fit, and reading never starves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.errors import PlanError
from segbatch.runtime.resources import Hardware, plan_pools
from segbatch.spec import JobSpec


def spec(**fields):
    return JobSpec.create(inputs=["a.tar"], output="out", **fields)


def machine(cpus, gpus=0):
    return Hardware(cpus, gpus, cpus, gpus)


@given(st.integers(1, 512), st.integers(0, 16), st.integers(1, 10**6))
def test_any_machine_runs_any_job_and_leaves_cpu_for_reading(cpus, gpus, chunks):
    pools = plan_pools(spec(), machine(cpus, gpus), chunks)
    held = pools.segment_actors * pools.segment_cpus + pools.refine_actors * pools.refine_cpus
    assert held + pools.read_cpus <= cpus + 1e-6
    assert pools.segment_actors * pools.segment_gpus <= gpus
    assert pools.segment_actors >= 1
    assert pools.refine_actors >= 1
    assert pools.device == ("cuda" if gpus else "cpu")


def test_two_cores_keep_both_busy():
    pools = plan_pools(spec(), machine(2), 100)
    assert (pools.segment_actors, pools.refine_actors, pools.threads) == (2, 2, 1)


def test_a_small_job_starts_no_idle_workers():
    pools = plan_pools(spec(), machine(64), 3)
    assert (pools.segment_actors, pools.refine_actors) == (3, 3)


def test_gpus_are_shared_by_fraction():
    pools = plan_pools(spec(num_gpus=0.25), machine(32, 2), 1000)
    assert (pools.segment_actors, pools.segment_gpus) == (8, 0.25)
    assert pools.refine_actors >= 16


@pytest.mark.parametrize(
    ("fields", "hardware", "message"),
    [
        ({"device": "cuda"}, machine(8), "cuda asked for, but there is no GPU"),
        ({"num_gpus": 2}, Hardware(32, 4, 8, 1), "2 a worker, but no node has more than 1 GPUs"),
        ({"segment_actors": 9, "num_gpus": 0.5}, machine(32, 4), r"9 x 0.5 GPU = 4.5, but there are 4 GPUs"),
        ({"segment_actors": 500}, machine(2), "the workers do not fit"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_the_arithmetic(fields, hardware, message):
    with pytest.raises(PlanError, match=message):
        plan_pools(spec(**fields), hardware, 1000)
