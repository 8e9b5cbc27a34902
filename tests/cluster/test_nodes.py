"""A cluster of three nodes, one of which is lost in the middle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.cluster.jobs import ROOT, assert_rows, committed, start, tars, undisturbed, wait_for


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    """A head of two cores; workers import the tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SEGBATCH_TEST_SCORED", str(tmp_path / "scored"))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield nodes
    finally:
        nodes.shutdown()


def run_on(address: str, corpus: list[str], output: Path, log: Path) -> subprocess.Popen[bytes]:
    # Where other tests have set a token, the cluster's nodes ask for it.
    token = {k: os.environ[k] for k in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN") if k in os.environ}
    env = {"SEGBATCH_TEST_SCORED": str(output.with_name("scored")), **token}
    where = ["--output", str(output), "--address", address, "--chunk-size", "4"]
    return start("run", *corpus, *where, "--model", "tests.networks:counted", "--refiner", "none", env=env, log=log)


def test_a_node_that_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    corpus = tars(tmp_path / "in", 4, 40)
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    driver = run_on(cluster.address, corpus, tmp_path / "out", tmp_path / "log")
    wait_for(lambda: len(committed(tmp_path / "out")) >= 5)
    cluster.remove_node(workers[0], allow_graceful=False)
    assert driver.wait(400) == 0, (tmp_path / "log").read_text()
    assert_rows(tmp_path / "out", undisturbed(corpus, 4).values())
