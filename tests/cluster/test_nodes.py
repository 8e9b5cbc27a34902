"""A cluster of three nodes, one of which is lost in the middle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import here
from tests.cluster.jobs import assert_same, committed, environment, start, tars, wait_for

# In a process of its own: a local Ray that other tests have started in this one leaves Ray bound to loopback here.
_NODES = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
nodes.wait_for_nodes()
print("at", nodes.address, flush=True)
sys.stdin.readline()
nodes.remove_node(workers[0], allow_graceful=False)
print("lost", flush=True)
sys.stdin.readline()
nodes.shutdown()
"""


class Nodes:
    """A head of two cores and two more nodes of one; workers import the tests."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _NODES],
                env=environment(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log
        self.address = self._said("at ")

    def _said(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(self._log.read_text())

    def _go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def lose_one(self) -> None:
        self._go_on()
        self._said("lost")

    def close(self) -> None:
        self._process.communicate("\n\n", timeout=60)


def env(folder: Path) -> dict[str, str]:
    return {"SEGBATCH_TEST_SCORED": str(folder / "scored"), "RAY_AUTH_MODE": "disabled"}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(env(tmp_path), tmp_path / "nodes.log")
    try:
        yield nodes
    finally:
        nodes.close()


def test_a_node_that_is_lost(nodes: Nodes, tmp_path: Path) -> None:
    corpus = tars(tmp_path / "in", 4, 40)
    output, log = tmp_path / "out", tmp_path / "log"
    where = ["--output", str(output), "--address", nodes.address, "--chunk-size", "4"]
    driver = start(
        *("run", *corpus, *where, "--model", "tests.networks:counted", "--refiner", "none"),
        env=env(tmp_path),
        log=log,
    )
    wait_for(lambda: len(committed(output)) >= 5)
    nodes.lose_one()
    assert driver.wait(400) == 0, log.read_text()
    here.run(here.spec(corpus, tmp_path / "reference"))
    assert_same(output, tmp_path / "reference")
