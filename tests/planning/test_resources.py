"""The pools always fit, and reading never starves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.planning.pools import Hardware, plan_pools


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
    halved = plan_pools(spec(), machine(7), 100, is_refine_bound=True)
    assert (halved.segment_actors, halved.refine_actors) == (4, 7)
    assert plan_pools(spec(segment_actors=3), machine(2), 100, is_refine_bound=True).segment_actors == 3
    pools = plan_pools(spec(), machine(64), 3)
    assert (pools.segment_actors, pools.refine_actors) == (3, 3)


def test_gpus_are_shared_by_fraction():
    pools = plan_pools(spec(num_gpus=0.25), machine(32, 2), 1000)
    assert (pools.segment_actors, pools.segment_gpus) == (8, 0.25)
    assert pools.refine_actors >= 16


def test_without_gpus_the_network_runs_on_cpus_whatever_the_machine_has():
    assert plan_pools(spec(num_gpus=0), machine(8, 2), 1000) == plan_pools(spec(), machine(8), 1000)
    to_come = nodes(8, max_cpus=72, max_gpus=8, max_node_gpus=4)
    assert plan_pools(spec(num_gpus=0), to_come, 1000).device == "cpu"


def nodes(cpus, gpus=0, **most):
    return Hardware(cpus, gpus, cpus / 2, gpus / 2, elastic=True, **most)


@given(st.integers(1, 512), st.integers(0, 16), st.integers(0, 512), st.integers(0, 16), st.integers(1, 10**6))
def test_a_cluster_is_filled_as_a_machine_is_and_the_pools_may_grow(cpus, gpus, more_cpus, more_gpus, chunks):
    most = {"max_cpus": cpus + more_cpus, "max_gpus": gpus + more_gpus, "max_node_gpus": gpus + more_gpus}
    hardware = Hardware(cpus, gpus, cpus, gpus, True, **most)
    pools = plan_pools(spec(), hardware, chunks)
    assert pools.max_segment_actors >= pools.segment_actors >= 1
    assert pools.max_refine_actors >= pools.refine_actors >= 1
    assert pools.max_segment_actors <= max(pools.segment_actors, chunks / 4 + 1)
    if gpus or not more_gpus:
        fixed = plan_pools(spec(), machine(cpus, gpus), chunks)
        assert (pools.segment_actors, pools.refine_actors) == (fixed.segment_actors, fixed.refine_actors)
        assert (pools.segment_cpus, pools.refine_cpus) == (fixed.segment_cpus, fixed.refine_cpus)
    else:
        assert (pools.segment_actors, pools.refine_actors, pools.device) == (1, 1, "cuda")


def test_pools_of_one_machine_are_fixed():
    pools = plan_pools(spec(), machine(8), 1000)
    assert (pools.max_segment_actors, pools.max_refine_actors) == (0, 0)
    assert "to" not in pools.describe()


def test_a_growing_cluster_is_asked_for_no_more_than_there_is_work():
    pools = plan_pools(spec(), nodes(16), 400)
    assert pools.describe().startswith("16 segment (1 to 100) x 0.4 CPU, 16 refine (1 to 100) x 0.4 CPU")
    assert plan_pools(spec(segment_actors=4, refine_actors=6), nodes(16), 400).max_segment_actors == 4
    assert plan_pools(spec(), nodes(16), 8).max_segment_actors == 8


def test_nodes_that_are_yet_to_come_are_asked_for_by_one_worker_of_each_kind():
    none_yet = nodes(0, max_cpus=64)
    pools = plan_pools(spec(), none_yet, 400)
    assert (pools.segment_actors, pools.refine_actors, pools.max_segment_actors) == (1, 1, 100)
    assert 0.4 <= pools.segment_cpus <= 1
    gpus_to_come = nodes(8, max_cpus=72, max_gpus=8, max_node_gpus=4)
    pools = plan_pools(spec(), gpus_to_come, 400)
    assert (pools.device, pools.segment_actors, pools.segment_gpus) == ("cuda", 1, 1.0)
    assert plan_pools(spec(device="cpu"), gpus_to_come, 400).segment_actors == 8


@pytest.mark.parametrize(
    ("fields", "hardware", "message"),
    [
        ({"device": "cuda"}, machine(8), "device: cuda requested, but there is no GPU"),
        ({"num_gpus": 1}, machine(8), "num_gpus: 1 per segment actor requested, but there is no GPU .*nvidia-smi"),
        ({"num_gpus": 0.25}, machine(8), "num_gpus: 0.25 per segment actor requested, but there is no GPU"),
        ({"num_gpus": 1}, nodes(8), "there is no GPU .no node of the cluster has one"),
        ({"num_gpus": 1, "device": "cpu"}, machine(8, 1), "num_gpus: 1 .* but device is cpu"),
        ({"num_gpus": 0, "device": "cuda"}, machine(8, 1), "num_gpus: 0 requested, but device is cuda"),
        ({"num_gpus": 2}, Hardware(32, 4, 8, 1), "2 a worker, but no node has more than 1 GPUs"),
        ({"segment_actors": 9, "num_gpus": 0.5}, machine(32, 4), r"9 x 0.5 GPU = 4.5, but there are 4 GPUs"),
        ({"segment_actors": 500}, machine(2), "cannot schedule the workers"),
        ({}, nodes(0), "cannot schedule the workers"),
        ({"device": "cuda"}, nodes(8), "there is no GPU"),
        ({"num_gpus": 2}, nodes(8, max_cpus=16, max_gpus=4, max_node_gpus=1), "no node has more than 1 GPUs"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_the_arithmetic(fields, hardware, message):
    with pytest.raises(PlanError, match=message):
        plan_pools(spec(**fields), hardware, 1000)


def test_the_workers_of_the_largest_node_share_its_memory():
    assert plan_pools(spec(), machine(2), 100).workers_per_node == 4
    assert plan_pools(spec(), machine(64), 1).workers_per_node == 2
    assert plan_pools(spec(segment_actors=1, refine_actors=3), machine(8), 100).workers_per_node == 4
    # Of two nodes, and of the nodes that an autoscaler adds, one has half of the workers or some more.
    assert 64 <= plan_pools(spec(), Hardware(64, 0, 32, 0, elastic=True), 10**4).workers_per_node <= 80
    assert plan_pools(spec(), Hardware(64, 0, 32, 0, elastic=True), 1).workers_per_node == 2
