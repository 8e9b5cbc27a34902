"""What a watched job tells Prometheus and its logs: one run on real Ray, scraped and read."""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import segbatch
from segbatch import JobSpec
from segbatch.cli.progress import EventReporter
from segbatch.errors import PlanError
from segbatch.ray_backend.prometheus import METRICS
from tests.cluster.jobs import committed
from tests.corpus import photographs, write_tar

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2hunter2"


@dataclass
class Watched:
    """A run of eight records in two chunks, one of them no picture, and what it left."""

    output: Path
    driver: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    logs: Path


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]


@pytest.fixture(scope="module")
def watched(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    import ray

    folder = tmp_path_factory.mktemp("watched")
    write_tar(folder / "a.tar", [*photographs(7, side=24), ("page.jpg", b"<html>gone</html>")])
    fields = {"inputs": [str(folder / "a.tar")], "output": str(folder / "out"), "model": "tests.networks:fast"}
    fields |= {"refiner": "none", "chunk_size": 4, "log_format": "json", "storage_options": {"secret": SECRET}}
    package = logging.getLogger("segbatch")
    before = package.handlers, package.propagate, package.level
    with pytest.MonkeyPatch.context() as patch, (folder / "stderr").open("w") as stderr:
        patch.setattr("sys.stderr", stderr)
        segbatch.run(JobSpec.create(**fields), reporter=EventReporter())
        with pytest.raises(PlanError):
            segbatch.run(JobSpec.create(**{**fields, "prune": 0.1, "output": str(folder / "out")}))
    package.handlers, package.propagate = before[:2]
    package.setLevel(before[2])
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    driver = _lines((folder / "stderr").read_text())
    runs = {line["run"] for line in driver}
    end = time.monotonic() + 30
    while True:  # Ray hands on what workers write to stderr when it comes to it
        everything = [line for path in logs.glob("worker-*.err") for line in _lines(path.read_text())]
        workers = [line for line in everything if line["run"] in runs]
        if sum(line["event"] == "chunk committed" for line in workers) >= 2 or time.monotonic() > end:
            return Watched(folder / "out", driver, workers, logs)
        time.sleep(0.1)


def test_the_driver_logs_an_event_a_line(watched: Watched) -> None:
    work, done = [line["event"] for line in watched.driver], {line["event"]: line for line in watched.driver}
    run = ["work started", "chunk finished", "chunk finished", "phase started", "run finished"]
    assert work == ["phase started", "phase started", *run, "run failed"]
    assert {line["chunk"] for line in watched.driver if "chunk" in line} == committed(watched.output)
    first, other = (line["run"] for line in watched.driver[-2:])
    assert first != other
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", first)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", watched.driver[0]["time"])
    assert (done["run finished"]["records"], done["run finished"]["errors"]) == (8, {"decode/UnknownFormat": 1})
    assert (done["run failed"]["level"], done["run failed"]["exit_code"]) == ("error", 2)
    assert "prune" in done["run failed"]["message"]


def test_workers_log_chunks_and_images(watched: Watched) -> None:
    lines = [line for line in watched.workers if line["event"] == "chunk committed"]
    assert {line["chunk"] for line in lines} == committed(watched.output)
    assert {line["run"] for line in lines} == {watched.driver[0]["run"]}
    assert sum(line["records"] for line in lines) == 8
    (failed,) = [line for line in watched.workers if line["event"] == "record failed"]
    assert (failed["image"], failed["stage"], failed["type"]) == ("a.tar/page", "decode", "UnknownFormat")
    assert failed["worker"] == "refine"


def test_no_log_holds_a_secret(watched: Watched) -> None:
    files = [p for p in watched.logs.rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if SECRET.encode() in p.read_bytes()]
    assert SECRET not in json.dumps(watched.driver)


def test_prometheus_reads_every_metric_that_was_counted(watched: Watched) -> None:
    import ray

    (node,) = [n for n in ray.nodes() if n["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    counted = {f"ray_{name}{'' if name == 'segbatch_chunks_left' else '_total'}": name for name in METRICS}
    expected = set(counted) - {"ray_segbatch_chunk_retries_total"}  # no worker died
    end = time.monotonic() + 60
    while True:  # every process reports each ten seconds
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = _samples(answer.read().decode())
        sums: dict[str, float] = {}
        for name, _, value in found:
            sums[name] = sums.get(name, 0) + value
        if expected <= set(sums):
            break
        assert time.monotonic() < end, expected - set(sums)
        time.sleep(0.5)
    for name, labels, _ in found:
        if name in counted:
            assert set(METRICS[counted[name]].labels) <= set(labels), (name, labels)
    assert sums["ray_segbatch_records_total"] >= 8
    assert sums["ray_segbatch_errors_total"] >= 1


def _samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    lines = [line for line in text.splitlines() if line.startswith("ray_")]
    found = [re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line) for line in lines]
    return [(m[1], dict(re.findall(r'(\w+)="([^"]*)"', m[2])), float(m[3])) for m in found if m]


def _queries() -> list[str]:
    board = json.loads((ROOT / "deploy/grafana/segbatch.json").read_text())
    rules = yaml.safe_load((ROOT / "deploy/grafana/alerts.yaml").read_text())["groups"][0]["rules"]
    return [t["expr"] for p in board["panels"] for t in p["targets"]] + [rule["expr"] for rule in rules]


def test_dashboard_and_alerts_ask_for_what_exists() -> None:
    from ray.data._internal.execution.interfaces.op_runtime_metrics import OpRuntimeMetrics

    own = {
        f"ray_{name}{'_total' if m.kind.__name__ == 'Counter' else ''}": set(m.labels) for name, m in METRICS.items()
    }
    rays = {f"ray_data_{m.name}": {"dataset", "operator"} for m in OpRuntimeMetrics.get_metrics()}
    asked = set()
    for query in _queries():
        names = set(re.findall(r"\bray_\w+", query))
        assert names <= set(own | rays), query
        asked |= names
        known = set.intersection(*((own | rays)[name] for name in names))
        by = [re.split(r", *", group) for group in re.findall(r"\bby \(([^)]*)\)", query)]
        given = re.findall(r"(\w+)=\"", query)
        assert {label for group in by for label in group} <= set.union(*((own | rays)[n] for n in names)), query
        assert len(names) > 1 or set(given) <= known, query
    assert asked >= set(own), "every metric is on the dashboard"


def test_the_runbook_has_every_metric_label_and_alert() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    for name, metric in METRICS.items():
        suffix = "_total" if metric.kind.__name__ == "Counter" else ""
        row = next(line for line in text.splitlines() if line.startswith(f"| `ray_{name}{suffix}`"))
        assert all(f"`{label}`" in row for label in metric.labels), row
    for rule in yaml.safe_load((ROOT / "deploy/grafana/alerts.yaml").read_text())["groups"][0]["rules"]:
        assert rule["alert"] in text
