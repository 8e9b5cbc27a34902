"""The whole job from ``s3://`` to ``s3://``: every kind of input, two drivers, and a store that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.cluster.jobs import environment, picture, start, tars, wait_for
from tests.store.proxy import KINDS, FaultyProxy
from tests.store.seaweed import Seaweed

TARS, IN_TAR, LOOSE, LISTED = 3, 8, 6, 5
RECORDS = TARS * IN_TAR + LOOSE + LISTED
FIXED = {"refiner": "none", "chunk_size": 4, "num_cpus": 2}


@dataclass
class Bench:
    """A corpus in the store, and jobs over it as their users start them."""

    seaweed: Seaweed
    folder: Path
    ray: Path
    inputs: list[str]
    logs: list[Path] = field(default_factory=list)

    def start(self, output: str, model: str, env: dict[str, str], options: dict[str, Any] | None = None) -> Any:
        """A driver. ``env`` holds the credentials, or else ``options`` does, in the configuration."""
        number = len(self.logs)
        config = self.folder / f"job{number}.yaml"
        spec = {"inputs": self.inputs, "output": output, "model": f"tests.networks:{model}", **FIXED}
        config.write_text(yaml.safe_dump(spec | ({"storage_options": options} if options else {})))
        self.logs.append(self.folder / f"log{number}")
        more = {"SEGBATCH_TEST_SCORED": str(self.folder / "scored"), "RAY_TMPDIR": str(self.ray)}
        return start("run", "--config", str(config), env=more | env, log=self.logs[-1])

    def read(self, output: str) -> dict[str, bytes]:
        """Every object below an output, by its name there."""
        fs = self.seaweed.client()
        root = output.removeprefix("s3://")
        return {str(p).removeprefix(f"{root}/"): fs.cat_file(p) for p in fs.find(root)}

    def rows(self, output: str) -> list[dict[str, Any]]:
        files = {n: data for n, data in self.read(output).items() if n.startswith("masks/")}
        tables = [pq.read_table(pa.BufferReader(data)) for data in files.values()]
        return sorted(pa.concat_tables(tables).to_pylist(), key=lambda r: r["image_id"])

    def committed(self, output: str) -> int:
        fs = self.seaweed.client()
        return len(fs.glob(f"{output.removeprefix('s3://')}/masks/*.parquet"))


def command(*args: str, env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "segbatch", *args],
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bench(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder, monkeypatch = tmp_path_factory.mktemp("s3"), pytest.MonkeyPatch()
    fs = seaweed.client()
    for path in tars(folder / "in", TARS, IN_TAR):
        fs.put_file(path, f"tests/corpus/shards/{Path(path).name}")
    for i in range(LOOSE):
        fs.pipe_file(f"tests/corpus/photos/{i % 2}/{i}.png", picture(1000 + i))
    for i in range(LISTED):
        fs.pipe_file(f"tests/corpus/elsewhere/{i}.png", picture(2000 + i))
    listed = "".join(f"s3://tests/corpus/elsewhere/{i}.png\n" for i in range(LISTED))
    fs.pipe_file("tests/corpus/list.csv", f"uri\n{listed}".encode())
    inputs = ["s3://tests/corpus/shards/*.tar", "s3://tests/corpus/photos/", "s3://tests/corpus/list.csv"]
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)  # credentials of the one who runs the tests
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    ray = Path(tempfile.mkdtemp(prefix="sb", dir="/tmp"))  # names of sockets below it have at most 107 bytes
    yield Bench(seaweed, folder, ray, inputs)
    monkeypatch.undo()
    shutil.rmtree(ray, ignore_errors=True)


@pytest.fixture(scope="module")
def finished(bench: Bench) -> str:
    """The output of a run that nothing disturbed, with credentials in the environment."""
    output = "s3://tests/finished"
    assert bench.start(output, "fast", bench.seaweed.environment).wait(300) == 0, bench.logs[-1].read_text()
    return output


def test_every_input_is_there_once_and_proved(bench: Bench, finished: str) -> None:
    rows = bench.rows(finished)
    assert len({r["image_id"] for r in rows}) == len(rows) == RECORDS
    assert all(r["error"] is None and r["mask"] for r in rows)
    held = bench.read(finished)
    assert {n.split("/")[0] for n in held} == {"masks", "stats", "previews", "run.json", "README.md", "_SUCCESS"}
    assert json.loads(held["run.json"])["state"] == "done"
    code, said = command("verify", finished, env=bench.seaweed.environment)
    assert code == 0, said
    assert f"{RECORDS} rows in " in said
    code, said = command("stats", finished, "--json", env=bench.seaweed.environment)
    assert code == 0, said
    assert sum(c["pixels"] for c in json.loads(said)["classes"]) == sum(r["height"] * r["width"] for r in rows)


def test_two_drivers_at_once_of_which_one_is_killed(bench: Bench, finished: str) -> None:
    """One has its credentials in the environment, the other in the configuration."""
    output, options = "s3://tests/both", bench.seaweed.storage_options()
    killed, other = (
        bench.start(output, "counted", bench.seaweed.environment),
        bench.start(output, "counted", {}, options),
    )
    wait_for(lambda: bench.committed(output) >= 3)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert other.wait(300) == 0, bench.logs[-1].read_text()
    assert bench.rows(output) == bench.rows(finished)
    assert bench.read(output)["stats/classes.parquet"] == bench.read(finished)["stats/classes.parquet"]


@pytest.mark.long  # make test has it in tests/chaos, among kills
def test_a_store_that_fails_one_request_of_seven(
    bench: Bench, finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = "s3://tests/faults"
    options = {"config_kwargs": {"read_timeout": 2}}
    with FaultyProxy(bench.seaweed.ports["s3"], spoil=2, of=14, seed=20261125, stall=4) as proxy:
        env = bench.seaweed.credentials() | {"AWS_ENDPOINT_URL": proxy.endpoint}
        code = bench.start(output, "fast", env, options).wait(400)
    assert code == 0, bench.logs[-1].read_text()
    assert bench.rows(output) == bench.rows(finished)
    assert bench.read(output)["stats/classes.parquet"] == bench.read(finished)["stats/classes.parquet"]
    assert proxy.share >= 0.10
    assert all(proxy.counts[kind] for kind in KINDS), proxy.counts
    with capsys.disabled():
        print(f"\n  {sum(proxy.counts.values())} requests, {proxy.share:.0%} spoilt: {dict(proxy.counts)}")


def test_merged_files_hold_the_same_rows(bench: Bench, finished: str) -> None:
    output, env = "s3://tests/merged", bench.seaweed.environment
    bench.seaweed.client().copy(finished.removeprefix("s3://"), output.removeprefix("s3://"), recursive=True)
    before = bench.committed(output)
    assert before > 1
    for told in (f"{before} files merged into one", "nothing to merge: 1 files"):
        code, said = command("compact", output, env=env)
        assert (code, told in said) == (0, True), said
        assert bench.committed(output) == 1
    assert bench.rows(output) == bench.rows(finished)
    code, said = command("verify", output, env=env)
    assert code == 0, said


def test_a_wrong_secret_is_told_before_any_work(bench: Bench) -> None:
    wrong = bench.seaweed.environment | {"AWS_SECRET_ACCESS_KEY": "WRONG-SECRET"}
    code, said = command("run", *bench.inputs, "-o", "s3://tests/refused", "--model", "null", env=wrong)
    assert code in (1, 2)
    assert "s3://tests/" in said
    assert "Traceback" not in said
    assert "WRONG-SECRET" not in said


def test_no_secret_is_anywhere(bench: Bench, finished: str) -> None:
    """In no object that any test above wrote, in nothing that was printed, in no log of Ray's."""
    seaweed = bench.seaweed
    written = {n: data for n, data in bench.read("s3://tests").items() if not n.startswith("corpus/")}
    assert f"{finished.removeprefix('s3://tests/')}/run.json" in written
    for name, data in written.items():
        assert seaweed.secret.encode() not in data, name
        assert seaweed.key.encode() not in data, name
    assert bench.logs
    logs = [p for p in bench.ray.rglob("*") if p.is_file() and "logs" in p.parts]
    assert logs, "Ray's logs are where they were said to be"
    for log in bench.logs + logs:
        data = log.read_bytes()
        assert seaweed.secret.encode() not in data, log
        assert seaweed.key.encode() not in data, log
