"""cluster.yaml by the check that ``ray up`` itself makes, and what our job needs beyond it."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.jobs import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    for name, node in prepared["available_node_types"].items():
        assert "ImageId" not in node["node_config"] or node["node_config"]["ImageId"], name
    assert prepared["setup_commands"] == [], "Ray's defaults would install another Ray"


@pytest.mark.parametrize("where", ["max_workers", "available_node_types.gpu.node_config", "docker"])
def test_ray_refuses_a_broken_copy(config: dict[str, Any], where: str) -> None:
    broken = copy.deepcopy(config)
    *path, last = where.split(".")
    inner = broken
    for key in path:
        inner = inner[key]
    inner[last] = "not this"
    with pytest.raises((ValidationError, ValueError, TypeError, AttributeError)):
        validate_config(prepare_config(broken))


def test_workers_are_spot_of_both_kinds_in_fixed_numbers(config: dict[str, Any]) -> None:
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert {t["resources"].get("GPU", 0) > 0 for t in types.values()} == {True, False}
    for node in types.values():
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert node["min_workers"] == node["max_workers"], "the cost is known"
    assert sum(t["max_workers"] for t in types.values()) == config["max_workers"]


def test_its_commands_exist(config: dict[str, Any]) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    wanted = 1 + config["max_workers"]
    assert f"wait_for_nodes.py --nodes {wanted}'" in text
    used = set(re.findall(r"/opt/segbatch/(\S+\.py)", text))
    assert used == {"jobs/segment.py", "deploy/wait_for_nodes.py"}
    for script in used:
        assert (ROOT / script).is_file()
        assert f"/opt/segbatch/{Path(script).parent}" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_ray_knows_the_flags(config: dict[str, Any]) -> None:
    known = subprocess.run(
        [Path(sys.executable).with_name("ray"), "start", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    for flag in [part.split("=")[0] for c in commands for part in shlex.split(c) if part.startswith("--")]:
        assert re.search(rf"{flag}\b", known), flag


@pytest.mark.parametrize(("nodes", "code"), [(1, 0), (2, 1)])
def test_waiting_for_nodes(local_ray: None, nodes: int, code: int) -> None:
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, ROOT / "deploy" / "wait_for_nodes.py", f"--nodes={nodes}", "--timeout=0.5"]
    # As Ray starts here: it asks for the token that is in the environment, and stays on loopback.
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    env = environment({"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"), **loopback})
    done = subprocess.run([*command, f"--address={address}"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert f"1 of {nodes} nodes: 2 CPUs, 0 GPUs" in done.stdout
