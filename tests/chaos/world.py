"""What chaos strikes: an object store behind a proxy that spoils requests, a cluster of real nodes, and drivers."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from ray.cluster_utils import Cluster

from tests.cluster.jobs import ROOT, picture, start, workers
from tests.corpus import bad_records, write_parquet, write_tar
from tests.store.proxy import FaultyProxy
from tests.store.seaweed import Seaweed

T = TypeVar("T")

CHUNK = 4
# A sixth of the requests are spoilt, and of these a sixth only slow: 13.9 % fail. Even in a short run these are more
# than one in ten of all requests, among which are those that met a killed store.
SPOIL, OF = 2, 12
KINDS = ("driver", "segment", "refine", "counter", "node", "store")
_TITLES = {"segment": "SegmentWorker", "refine": "RefineWorker", "counter": "ray::_Counter"}
# A lost node is known to be lost within some seconds; one that is slow is not taken for lost.
_RAY = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_prestart_worker_first_driver": "0",
}


@contextmanager
def world(
    folder: Path, seed: int, *, shards: int, records: int, nodes: int = 3, actors: int = 3, stall: float = 30.0
) -> Iterator[World]:
    """A ``World`` with its corpus in the store, and its nodes up; all of it is ended on leaving."""
    with ExitStack() as stack:
        # The nodes' workers have what this process has: the tests to import, the file of the counting network.
        env = {"PYTHONPATH": str(ROOT), "SEGBATCH_TEST_SCORED": str(folder / "scored"), **_RAY}
        stack.enter_context(mock.patch.dict(os.environ, env))
        store = Seaweed(folder / "store")
        stack.callback(store.kill)
        store.start()
        head = {"num_cpus": 0, "include_dashboard": False}
        cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        stack.callback(cluster.shutdown)
        proxy = stack.enter_context(FaultyProxy(store.ports["s3"], SPOIL, OF, seed, stall=stall))
        here = World(folder, store, proxy, cluster, random.Random(seed), actors)
        stack.callback(here.end_driver)
        here.upload(shards, records)
        for _ in range(nodes):
            _patiently(here.add_node)
        yield here


def _patiently(begin: Callable[[], T]) -> T:
    """Ray gives a node 30 seconds to start, which a busy machine may not keep."""
    for _ in range(4):
        with suppress(Exception):  # Ray raises no narrower one
            return begin()
    return begin()


@dataclass
class World:
    """The parts, and ``strike``, which breaks one of them as SIGKILL does."""

    folder: Path
    store: Seaweed
    proxy: FaultyProxy
    cluster: Cluster
    draw: random.Random
    actors: int
    driver: subprocess.Popen[bytes] | None = None
    nodes_due: list[float] = field(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        return ["s3://tests/chaos/in/*.tar", "s3://tests/chaos/in/*.parquet"]

    def upload(self, shards: int, records: int) -> None:
        """Tars and Parquet files in turn, ``records`` pictures each, one in 24 damaged."""
        bad, fs = list(bad_records().items()), self.store.client()
        for s in range(shards):
            numbers = range(s * records, (s + 1) * records)
            samples = [
                (f"{n:05d}.png", bad[n // 24 % len(bad)][1].data if n % 24 == 7 else picture(n)) for n in numbers
            ]
            path = self.folder / f"{s:03d}.{'parquet' if s % 2 else 'tar'}"
            (write_parquet if s % 2 else write_tar)(path, samples)
            fs.put_file(str(path), f"tests/chaos/in/{path.name}")

    def add_node(self) -> None:
        self.cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)

    def spec(self, output: str, endpoint: str) -> dict[str, Any]:
        return {
            "inputs": self.inputs, "output": output, "model": "tests.networks:counted", "chunk_size": CHUNK,
            "address": self.cluster.address, "segment_actors": self.actors, "refine_actors": self.actors,
            "max_error_fraction": 0.1, "storage_options": self.store.storage_options(endpoint),
        }  # fmt: skip

    def run(self, output: str, spoilt: bool) -> subprocess.Popen[bytes]:
        """Start a driver, as an operator does: the same command each time."""
        config = self.configuration(output, self.proxy.endpoint if spoilt else self.store.endpoint)
        self.driver = start("run", "--config", str(config), log=self.log)
        return self.driver

    def configuration(self, output: str, endpoint: str) -> Path:
        path = self.folder / f"job-{endpoint.rpartition(':')[2]}.yaml"
        path.write_text(yaml.safe_dump(self.spec(output, endpoint)))
        return path

    @property
    def log(self) -> Path:
        """What all drivers printed."""
        return self.folder / "drivers.log"

    def scored(self) -> int:
        """Images that the network has seen so far, in all attempts."""
        path = self.folder / "scored"
        return path.stat().st_size if path.exists() else 0

    def tend(self) -> None:
        """Bring back the nodes that are due; one that does not come up, on a busy machine, is due again."""
        while (due := min(self.nodes_due, default=math.inf)) <= time.monotonic():
            self.nodes_due.remove(due)
            try:
                self.add_node()
            except Exception:  # Ray raises no narrower one
                self.nodes_due.append(time.monotonic() + 5)

    def strike(self, kind: str) -> bool:
        """Kill one of a kind, which one is drawn; False if there is none now."""
        return self._strikes[kind]()

    @property
    def _strikes(self) -> dict[str, Callable[[], bool]]:
        actors = {kind: lambda kind=kind: self._kill_worker(kind) for kind in _TITLES}
        return {"driver": self._kill_driver, "node": self._kill_node, "store": self._kill_store, **actors}

    def _kill_driver(self) -> bool:
        # One that has not joined the cluster yet has nothing in hand.
        if self.driver is None or self.driver.poll() is not None or not workers(_TITLES["segment"], os.getpid()):
            return False
        self.end_driver()
        return True

    def end_driver(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()

    def _kill_worker(self, kind: str) -> bool:
        found = workers(_TITLES[kind], os.getpid())
        if not found:
            return False
        try:
            self.draw.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def _kill_node(self) -> bool:
        """The raylet, its agents and so all workers of a node; another comes within ten seconds."""
        nodes = sorted(self.cluster.worker_nodes, key=lambda n: n.unique_id)
        if len(nodes) < 2:
            return False
        self.cluster.remove_node(self.draw.choice(nodes), allow_graceful=False)
        self.nodes_due.append(time.monotonic() + self.draw.uniform(0, 10))
        return True

    def _kill_store(self) -> bool:
        """The server, which starts again on the same data."""
        self.store.kill()
        time.sleep(self.draw.uniform(0, 3))
        self.store.start()
        return True

    def names(self, output: str) -> set[str]:
        """Of every object below an output."""
        root = output.removeprefix("s3://")
        return {str(p).removeprefix(f"{root}/") for p in self.store.client().find(root)}

    def rows(self, output: str) -> pa.Table:
        """Every column of every row, in order of ``image_id``."""
        fs = self.store.client()
        found = fs.cat(fs.glob(f"{output.removeprefix('s3://')}/masks/*.parquet"))
        return pa.concat_tables([pq.read_table(pa.BufferReader(data)) for data in found.values()]).sort_by("image_id")

    def statistics(self, output: str) -> bytes:
        return bytes(self.store.client().cat_file(f"{output.removeprefix('s3://')}/stats/classes.parquet"))

    def unfinished_uploads(self) -> list[dict[str, Any]]:
        return list(self.store.client().call_s3("list_multipart_uploads", Bucket="tests").get("Uploads", []))
