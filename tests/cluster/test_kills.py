"""Drivers and actors are killed with SIGKILL in the middle of real runs: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

from tests.cluster.jobs import assert_same, committed, rows, start, statistics, tars, wait_for, workers

SHARDS, RECORDS, CHUNK = 4, 40, 4
CHUNKS = SHARDS * RECORDS // CHUNK


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tars(tmp_path_factory.mktemp("corpus"), SHARDS, RECORDS)


@pytest.fixture(scope="module")
def reference(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    assert start(*arguments(corpus, folder / "out"), env=scored(folder)).wait(300) == 0
    assert len(rows(folder / "out")) == SHARDS * RECORDS
    assert (folder / "scored").stat().st_size == SHARDS * RECORDS
    return folder / "out"


def arguments(corpus: list[str], output: Path) -> list[str]:
    return [
        "run", *corpus, "--output", str(output), "--model", "tests.networks:counted",
        "--refiner", "none", "--chunk-size", str(CHUNK), "--num-cpus", "2",
    ]  # fmt: skip


def scored(folder: Path) -> dict[str, str]:
    return {"SEGBATCH_TEST_SCORED": str(folder / "scored")}


@pytest.mark.long  # make test has one of these kills in tests/chaos
def test_a_driver_that_is_killed_again_and_again(
    corpus: list[str], reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = 5
    output = tmp_path / "out"
    moments = random.Random(20261125)
    history = [0]
    for _ in range(kills):
        driver = start(*arguments(corpus, output), env=scored(tmp_path))
        kept = {n: (output / "masks" / n).stat().st_mtime_ns for n in committed(output)}
        goal = len(kept) + moments.randint(1, 6)
        wait_for(lambda: len(committed(output)) >= goal)  # noqa: B023
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        history.append(len(committed(output)))
        assert not (output / "_SUCCESS").exists()
        assert kept == {n: (output / "masks" / n).stat().st_mtime_ns for n in kept}, "a committed chunk was redone"
    assert start(*arguments(corpus, output), env=scored(tmp_path)).wait(300) == 0
    assert_same(output, reference)
    images = (tmp_path / "scored").stat().st_size
    again = images - SHARDS * RECORDS
    # A driver has in flight: two chunks for each of two segment actors, as many at refining, and what lies between.
    assert again <= kills * 10 * CHUNK
    with capsys.disabled():
        print(
            f"\n  driver killed at {history[1:]} of {CHUNKS} committed chunks; {again} of "
            f"{SHARDS * RECORDS} images scored again, {again / CHUNK / kills:.1f} chunks a kill"
        )


@pytest.mark.long  # make test has it in tests/chaos
@pytest.mark.parametrize("stage", ["SegmentWorker", "RefineWorker"])
def test_an_actor_that_is_killed(corpus: list[str], reference: Path, tmp_path: Path, stage: str) -> None:
    output = tmp_path / "out"
    log = tmp_path / "log"
    driver = start(*arguments(corpus, output), env=scored(tmp_path), log=log)
    wait_for(lambda: len(committed(output)) >= 3)
    victims = workers(stage, driver.pid)
    assert victims, f"no process of {stage} found"
    victims[0].kill()
    assert driver.wait(300) == 0, log.read_text()
    assert_same(output, reference)


@pytest.mark.long  # make test has it on S3, with one of the two killed
def test_two_runs_at_once_into_one_output(corpus: list[str], reference: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    both = [start(*arguments(corpus, output), env=scored(tmp_path), log=tmp_path / f"log{i}") for i in range(2)]
    codes = [p.wait(400) for p in both]
    assert codes == [0, 0], [(tmp_path / f"log{i}").read_text() for i in range(2)]
    assert_same(output, reference)


@pytest.mark.long  # make test has it in one Ray, in tests/operations/test_run.py
def test_a_finished_output_costs_a_listing(corpus: list[str], reference: Path, tmp_path: Path) -> None:
    before = {n: (reference / "masks" / n).stat().st_mtime_ns for n in committed(reference)}
    log = tmp_path / "log"
    assert start(*arguments(corpus, reference), env=scored(tmp_path), log=log).wait(300) == 0
    assert before == {n: (reference / "masks" / n).stat().st_mtime_ns for n in committed(reference)}
    assert f"({CHUNKS} of {CHUNKS} chunks committed before)" in log.read_text()
    assert not (tmp_path / "scored").stat().st_size
    assert json.loads((reference / "run.json").read_text())["state"] == "done"
    assert sum(r["pixels"] for r in statistics(reference)) == sum(r["height"] * r["width"] for r in rows(reference))
